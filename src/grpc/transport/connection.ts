import { constants, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { InboundBudget, type TotalBudget } from './inbound-budget.js';
import { Pings } from './pings.js';
import { SendLimit } from './send-limit.js';

/** When to close a connection whose client sends nothing, in milliseconds. */
export interface Keepalive {
  /** A client that has sent nothing for this long gets a PING, which it has to answer. */
  readonly time: number;
  /** If it sends nothing for this long after the PING, the connection is closed. */
  readonly timeout: number;
}

/** A call, as its connection uses it. */
interface ConnectionCall {
  readonly stream: ServerHttp2Stream;
  /** True for a call that does not end by itself. */
  readonly endless: boolean;
  /** True if both its request and its response are streams: its messages wait while its answers are not read. */
  readonly isDuplex: boolean;
  /** How much of what came its handler has not dealt with. */
  readonly pending: number;
  /** True once its handler is done and its status is written. */
  readonly finished: boolean;
  abortUnread(reason: Error): void;
}

/** How long (milliseconds) after its last GOAWAY a connection is closed. */
const CLOSE_DELAY = 500;

/**
 * One HTTP/2 connection: its calls, its limits, and whether its client is alive. Any received bytes show that it is: an
 * answer to a PING, a window update, a call.
 */
export class Connection {
  /** Why this server ended the connection, if it did. */
  endedBecause: string | undefined;
  /** Set by retire(): the status of the calls that still come. */
  refusal: unknown;

  /** The calls that are open on it. */
  readonly calls = new Set<ConnectionCall>();
  readonly pings: Pings;
  /** When its response streams may write. */
  readonly outbound: SendLimit;
  /** Bounds the bytes that its request streams have received. */
  readonly inbound: InboundBudget;

  /** The socket's bytesRead when checkLife() last saw it change, and when that was. */
  private bytesRead = 0;
  private receivedAt = performance.now();
  /** When a PING had left for the silent client, Infinity until it has; undefined while the client is not silent. */
  private pingedAt: number | undefined;

  private writesDone = 0;
  /** The writes done and the batches released when checkStuck() last looked, and how often in a row it found nothing moved. */
  private progress = 0;
  private stuck = 0;
  /** The last result of checkGone(). */
  private gone = 0;

  constructor(
    private readonly session: ServerHttp2Session,
    private readonly socket: Duplex,
    private readonly keepalive: Keepalive,
    limit: number,
    total: TotalBudget,
    /** Whom the client's certificate names, if it has a verified one. */
    readonly peerIdentity: string | undefined,
  ) {
    this.pings = new Pings(session);
    this.outbound = new SendLimit(session, this.pings);
    this.inbound = new InboundBudget(session, limit, total);
  }

  get isGone(): boolean {
    return this.session.destroyed;
  }

  private get hasEndlessCall(): boolean {
    for (const { endless } of this.calls) if (endless) return true;
    return false;
  }

  private get hasUnfinishedCall(): boolean {
    for (const { finished } of this.calls) if (!finished) return true;
    return false;
  }

  /** True if its client may have sent all, and wait for an answer. */
  private get awaitsAnswer(): boolean {
    for (const { endless, finished, pending, stream } of this.calls)
      if (!endless && !finished && (pending > 0 || stream.readableEnded)) return true;
    return false;
  }

  /** True if a call, whose messages may wait for that, has an answer that its client does not read. */
  private get hasUnreadAnswer(): boolean {
    for (const { isDuplex, stream } of this.calls)
      if (isDuplex && stream.writableLength > 0) return true;
    return false;
  }

  /** Counts a write of one of its streams that the kernel has taken. */
  writeDone(bytes: number, round: number): void {
    this.writesDone++;
    this.outbound.writeDone(bytes, round);
  }

  /**
   * Returns how often in a row, with this time, nothing has moved because of the client: it may send no more, no handler takes anything,
   * and no write is done of an answer that is there. If the answers of all duplex calls are read, the store is slow to take what it sent.
   *
   * Times are counted, and not read from a clock: if this process stands still, the client is not to blame.
   */
  checkStuck(): number {
    const progress = this.writesDone + this.inbound.releases;
    const hasMoved = progress !== this.progress || !this.inbound.isShut;
    this.progress = progress;
    const isStuck = !hasMoved && this.endedBecause === undefined && this.hasUnreadAnswer;
    this.stuck = isStuck ? this.stuck + 1 : 0;
    return this.stuck;
  }

  /**
   * Returns how often in a row, with this time, the session was destroyed and its socket was not closed. Node waits for the writes that
   * are under way, and for the client to close its side. Over TLS, a write that fails at once is never done.
   */
  checkGone(): number {
    return this.isGone ? ++this.gone : 0;
  }

  destroySocket(): void {
    this.socket.destroy();
  }

  /** Sends the client a GOAWAY with the reason, and closes the connection a little later. */
  end(why: string): void {
    const { session } = this;
    if (session.destroyed) return;
    const { lastProcStreamID } = session.state;
    session.goaway(constants.NGHTTP2_ENHANCE_YOUR_CALM, lastProcStreamID, Buffer.from(why));
    setTimeout(() => session.destroy(), CLOSE_DELAY);
  }

  /**
   * Sends GOAWAY, so that the client makes its next calls on another connection. Those that it has made before it reads that
   * are refused; those that are open go on, and the connection closes after the last one.
   *
   * Session.close() is only called then: after it, node sends no PINGs, without which nothing tells slow clients from dead ones.
   */
  retire(refusal: unknown): void {
    const { session } = this;
    if (session.destroyed) return;
    this.refusal = refusal;
    session.goaway(constants.NGHTTP2_NO_ERROR, session.state.lastProcStreamID);
    this.closeWithoutCalls();
  }

  remove(call: ConnectionCall): void {
    this.calls.delete(call);
    if (this.refusal !== undefined) this.closeWithoutCalls();
  }

  /** Closes a retired connection. Streams of methods that have no handler here, such as a health watch, end with it. */
  private closeWithoutCalls(): void {
    const { calls, session } = this;
    if (calls.size > 0 || session.destroyed) return;
    session.close();
    setTimeout(() => session.destroy(), CLOSE_DELAY).unref();
  }

  /** Closes the connection at once. */
  destroy(): void {
    this.session.destroy();
  }

  /**
   * Sends a silent client a PING, and closes the connection if nothing comes after it. It is never closed without that PING,
   * nor before node has looked at the socket once more: if this process was paused, the client's bytes may be there and not
   * yet read.
   */
  checkLife(now: number): void {
    const { session, keepalive, pingedAt } = this;
    if (session.destroyed) return;
    // After a client's GOAWAY node sends no PING. A client that waits for a result may be silent then; one that watches or chats
    // is not for long, nor one that is still to send the rest of its requests: it may have broken the connection, which node does
    // not close then. Node's own client answers GOAWAY with GOAWAY: on a retired connection its silence shows nothing while calls move.
    const maySayNothing = this.awaitsAnswer && !this.hasEndlessCall;
    const isMoving = this.refusal !== undefined && this.hasUnfinishedCall;
    if (session.closed && (isMoving || maySayNothing)) return;
    const { bytesRead } = session.socket;
    if (bytesRead !== this.bytesRead) {
      this.bytesRead = bytesRead;
      this.receivedAt = now;
      this.pingedAt = undefined;
      return;
    }
    const silence = now - this.receivedAt;
    if (pingedAt === undefined) {
      if (silence < keepalive.time) return;
      this.pingedAt = Infinity;
      this.pings.ask(() => {});
      setImmediate(() => this.pingHasLeft());
    } else if (now - pingedAt >= keepalive.timeout) {
      // An immediate runs after node has read what has come.
      setImmediate(() => this.endIfSilent(silence));
    }
  }

  /**
   * Begins the time in which an answer has to come. Node writes the PING in an immediate, before this one: if this process is
   * paused until then, the client has not been asked yet.
   */
  private pingHasLeft(): void {
    if (this.pingedAt === Infinity) this.pingedAt = performance.now();
  }

  /** Closes the connection unless bytes came since checkLife() looked. */
  private endIfSilent(silence: number): void {
    const { session } = this;
    if (session.destroyed || session.socket.bytesRead !== this.bytesRead) return;
    this.endedBecause = `the client's connection is gone: nothing came from it for ${(silence / 1000).toFixed(1)} s`;
    // Its streams are reset with a code, because a client that was only paused may come back and read it.
    session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }
}
