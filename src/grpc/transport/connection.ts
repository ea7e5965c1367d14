import { constants, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { InboundBudget, type TotalBudget } from './inbound-budget.js';
import { Pings } from './pings.js';
import { SendLimit } from './send-limit.js';

/** When a connection whose client no longer sends anything is given up, in milliseconds. */
export interface Keepalive {
  /** After this long a silence, the client is sent a PING, which it has to answer. */
  readonly time: number;
  /** If it stays silent for this long after that, it is taken for gone. */
  readonly timeout: number;
}

/** A call of a connection, as far as it ends with it. */
interface ConnectionCall {
  readonly stream: ServerHttp2Stream;
  abortUnread(reason: Error): void;
}

/** How long (milliseconds) a client may take to read why its connection is ended, before it is closed. */
const FAREWELL = 500;

/**
 * One HTTP/2 connection, and whether its client lives. Life is bytes received, whatever they say: an answer to a PING, a
 * window update, a call.
 */
export class Connection {
  /** Why this server ended the connection, if it did. */
  endedBecause: string | undefined;

  /** The calls that are open on it. */
  readonly calls = new Set<ConnectionCall>();
  readonly pings: Pings;
  /** When its response streams may write. */
  readonly outbound: SendLimit;
  /** Bounds the bytes that its request streams have received. */
  readonly inbound: InboundBudget;

  private received = 0;
  private receivedAt = performance.now();
  /** When the silent client was asked for a sign of life. */
  private askedAt: number | undefined;

  /** Writes that were done and batches that handlers have finished with, in all; and when that last changed. */
  private writesDone = 0;
  private moves = 0;
  private movedAt = performance.now();

  constructor(
    private readonly session: ServerHttp2Session,
    private readonly keepalive: Keepalive,
    limit: number,
    total: TotalBudget,
  ) {
    this.pings = new Pings(session);
    this.outbound = new SendLimit(session, this.pings);
    this.inbound = new InboundBudget(session, limit, total);
  }

  get isGone(): boolean {
    return this.session.destroyed;
  }

  /** True if one of its calls has an answer that its client does not read. */
  get hasUnreadAnswer(): boolean {
    for (const { stream } of this.calls) if (stream.writableLength > 0) return true;
    return false;
  }

  /** Counts a write of one of its streams that is done. */
  writeDone(bytes: number, round: number): void {
    this.writesDone++;
    this.outbound.writeDone(bytes, round);
  }

  /** For how long (milliseconds) its client could send no more, no handler took anything and no write went out. */
  stuckFor(now: number): number {
    const moves = this.writesDone + this.inbound.releases;
    if (moves !== this.moves || !this.inbound.isShut || this.endedBecause !== undefined) {
      this.moves = moves;
      this.movedAt = now;
    }
    return now - this.movedAt;
  }

  /** Tells the client why, and closes the connection once it may have read that. */
  end(why: string): void {
    const { session } = this;
    if (session.destroyed) return;
    const { lastProcStreamID } = session.state;
    session.goaway(constants.NGHTTP2_ENHANCE_YOUR_CALM, lastProcStreamID, Buffer.from(why));
    setTimeout(() => session.destroy(), FAREWELL);
  }

  /** Closes the connection at once. */
  destroy(): void {
    this.session.destroy();
  }

  /**
   * Asks a silent client for a sign of life, and ends the connection if none comes. Only after it was asked: this process
   * may have stood still as well, and then it has not read what has come.
   */
  checkLife(now: number): void {
    const { session, keepalive, askedAt } = this;
    if (session.destroyed || session.closed) return;
    const received = session.socket.bytesRead;
    if (received !== this.received) {
      this.received = received;
      this.receivedAt = now;
      this.askedAt = undefined;
      return;
    }
    const silence = now - this.receivedAt;
    if (askedAt === undefined) {
      if (silence < keepalive.time) return;
      this.askedAt = now;
      this.pings.ask(() => {});
    } else if (now - askedAt >= keepalive.timeout) {
      this.endedBecause = `the client's connection is gone: nothing came from it for ${(silence / 1000).toFixed(1)} s`;
      session.destroy();
    }
  }
}
