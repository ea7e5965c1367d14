import { constants, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { InboundBudget, type InboundLimits, TotalBudget } from './inbound-budget.js';

/** When a connection whose client no longer sends anything is given up, in milliseconds. */
export interface Keepalive {
  /** After this long a silence, the client is sent a PING, which it has to answer. */
  readonly time: number;
  /** After this much longer, the client is taken for gone. */
  readonly timeout: number;
}

/** What waits until a connection has room to write. */
export interface Writer {
  /** Writes, unless the connection is full again. */
  resume(): void;
}

/**
 * Bytes that may be written to a connection beyond its last answered PING: what it starts with, which is also the
 * least, and the most, which is enough for 80 MB/s over a round trip of 50 ms.
 */
const LEAST_IN_FLIGHT = 128 * 1024;
const MOST_IN_FLIGHT = 4 * 2 ** 20;
/** A PING that waits longer than this (milliseconds) on its way stands behind more than its link can take. */
const LONG_WAIT = 2_000;
/** A link on which PINGs wait less than this (milliseconds) can take more. */
const SHORT_WAIT = 500;
/** Node does not say when a client opens its connection's window: writers that wait for it ask this often (milliseconds). */
const ASK_INTERVAL = 20;
/** How long (milliseconds) a client may take to read why its connection is ended, before it is closed. */
const FAREWELL = 500;

/**
 * One HTTP/2 connection: which of its streams may write, and whether its client lives.
 *
 * **In flight.** A write that is done says only that the kernel had room. So a PING follows each quarter of what may be
 * in flight, and its answer shows what has arrived. What is in flight is bounded to what the link takes in a second or
 * two: it doubles when answers are fast although half of it was in use, and halves when they are slow. So a PING is
 * answered within seconds on a slow link as well, and a result does not stand behind megabytes of events.
 *
 * **The client's window of the connection.** What waits for it in nghttp2 is sent in no fair order: streams that are
 * written to again and again starve others for good (test/faults/slow-links.spec.ts). So streams write no more than it
 * has room for, in turn. Writes whose own stream has no window are not waiting for it: the answer to a PING, which
 * overtakes them, tells them apart.
 *
 * **Life** is bytes received, whatever they say: an answer to a PING, a window update, a call.
 */
export class Connection {
  /** Why this server ended the connection, if it did. */
  endedBecause: string | undefined;

  private maxInFlight = LEAST_IN_FLIGHT;
  /** Bytes written to the connection's streams so far, in all; as of the newest PING; as of the newest answer. */
  private written = 0;
  private pinged = 0;
  private answered = 0;
  /** The shortest that an answer took, milliseconds. */
  private roundTrip = Infinity;
  private waiting: Writer[] = [];

  /** At least this much of the connection's window is left for writes, bytes. */
  private windowLeft = 0;
  /** Bytes of writes that have not gone out and may be waiting for the connection's window: those of this round. */
  private pendingBytes = 0;
  private round = 0;
  private isAsking = false;
  /** They are called back when the next PING of pingForAskers() is answered. */
  private askers: (() => void)[] = [];
  private isPinging = false;

  private received = 0;
  private receivedAt = performance.now();
  private pings = 0;

  /** What its request streams have received. */
  readonly inbound: InboundBudget;
  /** Writes that have gone out and batches that handlers have finished with, in all; and when that last changed. */
  private writesOut = 0;
  private moves = 0;
  private movedAt = performance.now();

  constructor(
    private readonly session: ServerHttp2Session,
    private readonly keepalive: Keepalive,
    limit: number,
    total: TotalBudget,
  ) {
    this.inbound = new InboundBudget(session, limit, total);
  }

  /**
   * True while nothing more should be written before the client has taken what was. Never after GOAWAY, when node
   * sends no PING any more.
   */
  get isFull(): boolean {
    const isMuchInFlight = this.written - this.answered >= this.maxInFlight;
    return (isMuchInFlight || this.isWindowTaken) && !this.session.closed;
  }

  private get isWindowTaken(): boolean {
    if (this.windowLeft > 0 || this.pendingBytes === 0) return false;
    this.windowLeft = this.window - this.pendingBytes;
    return this.windowLeft <= 0;
  }

  get isGone(): boolean {
    return this.session.destroyed;
  }

  /** Bytes that the client lets all streams together send. */
  get window(): number {
    return this.session.state.remoteWindowSize ?? 0;
  }

  /**
   * Counts bytes that are written to one of its streams.
   *
   * @returns the round of the write, for wentOut()
   */
  wrote(bytes: number): number {
    this.written += bytes;
    this.pendingBytes += bytes;
    this.windowLeft -= bytes;
    if (this.written - this.pinged >= this.maxInFlight / 4) this.mark();
    return this.round;
  }

  /** A write of wrote() has gone out, or never will: its stream is gone. */
  wentOut(bytes: number, round: number): void {
    this.writesOut++;
    if (round === this.round) this.pendingBytes -= bytes;
    if (this.waiting.length > 0) this.resumeWriters();
  }

  private mark(): void {
    const upTo = this.written;
    const inFlight = upTo - this.answered;
    const sentAt = performance.now();
    const isSent = this.ping(() => {
      this.answered = upTo;
      const took = performance.now() - sentAt;
      this.roundTrip = Math.min(this.roundTrip, took);
      const waited = took - this.roundTrip;
      if (waited > LONG_WAIT) {
        this.maxInFlight = Math.max(LEAST_IN_FLIGHT, this.maxInFlight / 2);
      } else if (waited < SHORT_WAIT && inFlight >= this.maxInFlight / 2) {
        this.maxInFlight = Math.min(MOST_IN_FLIGHT, this.maxInFlight * 2);
      }
      this.resumeWriters();
    });
    if (isSent) this.pinged = upTo;
  }

  /** Resumes a writer once the connection is no longer full, those that have waited longest first. */
  wait(writer: Writer): void {
    this.waiting.push(writer);
    if (!this.isAsking) this.askForWindow();
  }

  /** Sees within a round trip what of the connection's window is taken by writes that wait for another one. */
  private askForWindow(): void {
    this.isAsking = true;
    const upTo = this.written;
    this.onAnswer(() => {
      // No PING of mark() may be under way: when this was written, a quarter of what may be in flight was more.
      this.answered = Math.max(this.answered, upTo);
      this.pinged = Math.max(this.pinged, upTo);
      if (this.window > 0) {
        this.round++;
        this.pendingBytes = 0;
      }
      this.resumeWriters();
      if (this.waiting.length > 0 && !this.isGone)
        setTimeout(() => this.askForWindow(), ASK_INTERVAL);
      else this.isAsking = false;
    });
  }

  private resumeWriters(): void {
    while (this.waiting.length > 0 && !this.isFull) this.waiting.shift()!.resume();
  }

  /**
   * Calls back once the client has answered a PING that is sent from now on: then it has read all that was sent before.
   * Those who ask while one is under way share the next. On a connection that is ending, where node sends no PING, it
   * calls back at once.
   */
  onAnswer(callback: () => void): void {
    this.askers.push(callback);
    if (!this.isPinging) this.pingForAskers();
  }

  private pingForAskers(): void {
    const { askers } = this;
    this.askers = [];
    this.isPinging = true;
    const answer = (): void => {
      this.isPinging = false;
      for (const callback of askers) callback();
      if (this.askers.length > 0 && !this.isPinging) this.pingForAskers();
    };
    if (!this.ping(answer)) answer();
  }

  /** @returns false if it can't be sent: the connection is ending, or has ten under way */
  private ping(onAnswer: () => void): boolean {
    if (this.session.destroyed || this.session.closed) return false;
    this.pings++;
    return this.session.ping((error) => {
      this.pings--;
      if (!error) onAnswer();
    });
  }

  /** For how long (milliseconds) its client could send no more, no handler took anything and no write went out. */
  stuckFor(now: number): number {
    const moves = this.writesOut + this.inbound.releases;
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

  /** Ends the connection if its client was silent for too long, and asks it for an answer before. */
  checkLife(now: number): void {
    const { session, keepalive } = this;
    if (session.destroyed || session.closed) return;
    const received = session.socket.bytesRead;
    if (received !== this.received) {
      this.received = received;
      this.receivedAt = now;
      return;
    }
    const silence = now - this.receivedAt;
    if (silence >= keepalive.time + keepalive.timeout) {
      this.endedBecause = `the client's connection is gone: nothing came from it for ${(silence / 1000).toFixed(1)} s`;
      session.destroy();
    } else if (silence >= keepalive.time && this.pings === 0) {
      this.ping(() => {});
    }
  }
}

/** The calls of a connection, for what concerns all of them. */
export interface ConnectionCalls {
  /** True if one of them has an answer that its client does not read. */
  waitForClient(connection: Connection): boolean;
  /** Ends all of them now, with RESOURCE_EXHAUSTED. */
  abort(connection: Connection, why: string): void;
}

/** The connections of one server, all looked at by one timer. */
export class Connections {
  private readonly all = new Map<object, Connection>();
  private timer: NodeJS.Timeout | undefined;
  private readonly total: TotalBudget;

  constructor(
    private readonly keepalive: Keepalive,
    private readonly limits: InboundLimits,
    /** Ends the calls of a connection that has to be ended, if they are as it says. */
    private readonly calls: ConnectionCalls,
  ) {
    this.total = new TotalBudget(limits.total, () => this.endLargest());
  }

  add(session: ServerHttp2Session): void {
    const { keepalive, limits, total } = this;
    const connection = new Connection(session, keepalive, limits.connection, total);
    this.all.set(session, connection);
    session.once('close', () => this.remove(session));
    const { time, timeout } = this.keepalive;
    this.timer ??= setInterval(() => this.checkLives(), Math.min(time, timeout) / 8).unref();
  }

  /** The connection of a stream that is open. */
  of(stream: ServerHttp2Stream): Connection | undefined {
    return stream.session && this.all.get(stream.session);
  }

  private remove(session: ServerHttp2Session): void {
    this.all.delete(session);
    if (this.all.size > 0) return;
    clearInterval(this.timer);
    this.timer = undefined;
  }

  private checkLives(): void {
    const now = performance.now();
    const { time, timeout } = this.keepalive;
    for (const connection of this.all.values()) {
      connection.checkLife(now);
      if (connection.stuckFor(now) < time + timeout) continue;
      // Else it is the store that does not take what was sent.
      if (!this.calls.waitForClient(connection)) continue;
      this.end(
        connection,
        `nothing has moved on this connection for ${((time + timeout) / 1000).toFixed(1)} s: its messages fill what ` +
          'FEED_SESSION_WINDOW lets a connection send ahead, and their answers are not read. Read while you send',
      );
    }
  }

  /** Ends the connections that hold most, until the others hold no more than all may. */
  private endLargest(): void {
    const open = [...this.all.values()].filter(({ endedBecause }) => endedBecause === undefined);
    let held = open.reduce((sum, { inbound }) => sum + inbound.held, 0);
    for (const connection of open.toSorted((a, b) => b.inbound.held - a.inbound.held)) {
      if (held <= this.total.limit) return;
      held -= connection.inbound.held;
      this.end(
        connection,
        `this connection holds most (${connection.inbound.held} bytes) of what was sent and not yet taken, which is ` +
          `over FEED_RECEIVE_BYTES (${this.total.limit}) in all: send less at a time, or try again later`,
      );
    }
  }

  private end(connection: Connection, why: string): void {
    connection.endedBecause = why;
    this.calls.abort(connection, why);
    connection.end(why);
  }
}
