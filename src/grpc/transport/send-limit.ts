import type { ServerHttp2Session } from 'node:http2';
import type { Pings } from './pings.js';

/** A stream's pump that waits for room on its connection. */
export interface Writer {
  /** Writes, unless the connection is full again. */
  resume(): void;
}

/** The limit on bytes in flight starts here, and never falls below it. */
const LEAST_IN_FLIGHT = 128 * 1024;
/** It never rises above this, which is enough for 80 MB/s over a round trip of 50 ms. */
const MOST_IN_FLIGHT = 4 * 2 ** 20;
/** If an answer takes this much longer (milliseconds) than the fastest one, too much is queued on the link: the limit is halved. */
const LONG_WAIT = 2_000;
/** If it takes less than this longer (milliseconds), and half of the limit was used, the limit is doubled. */
const SHORT_WAIT = 500;
/** While writers wait, the client is asked this often (milliseconds): node does not say when it opens its window. */
const ASK_INTERVAL = 20;

/**
 * Says when the streams of one connection may write.
 *
 * **In flight.** A write that is done says only that the kernel had room. So a PING follows each quarter of the limit,
 * and its answer confirms what was sent before it. The limit follows the link: what is in flight is what the link takes in
 * a second or two. So a PING is answered within seconds on a slow link as well, and a result does not stand behind
 * megabytes of events.
 *
 * **The client's window of the connection.** Writes that wait for it in nghttp2 are sent in no fair order: streams that
 * write again and again starve others for good (test/faults/slow-links.spec.ts). So streams write no more than it has
 * room for, in turn.
 *
 * A write may also wait for its own stream's window, for as long as its client likes. Such writes must not hold up others.
 * A PING overtakes them: if the connection's window is open when it is answered, all writes that are still pending wait for
 * their own streams. Then a new round begins, in which they do not count.
 */
export class SendLimit {
  private maxInFlight = LEAST_IN_FLIGHT;
  /** Bytes that the kernel has taken, in all; as of the newest PING; as of the newest answer. */
  private sent = 0;
  private pinged = 0;
  private confirmed = 0;
  /** The shortest time that an answer took, milliseconds. */
  private roundTrip = Infinity;

  /** Bytes written in this round that the kernel has not taken. */
  private pending = 0;
  private round = 0;
  /** The connection's window has room for at least this many bytes more. It is read anew when this is used up. */
  private windowLeft = 0;

  private readonly writers = new Set<Writer>();
  private isAsking = false;

  constructor(
    private readonly session: ServerHttp2Session,
    private readonly pings: Pings,
  ) {}

  /** True while no stream should write. Never after GOAWAY, when node sends no PING any more. */
  isFull(): boolean {
    const inFlight = this.sent - this.confirmed + this.pending;
    return (inFlight >= this.maxInFlight || this.isWindowTaken()) && !this.session.closed;
  }

  private isWindowTaken(): boolean {
    // Without a pending write, nothing would tell that the window has opened: one is let through.
    if (this.windowLeft > 0 || this.pending === 0) return false;
    this.windowLeft = this.window - this.pending;
    return this.windowLeft <= 0;
  }

  /** Bytes that the client lets all streams of the connection together send. */
  get window(): number {
    return this.session.state.remoteWindowSize ?? 0;
  }

  /**
   * Counts a write that begins.
   *
   * @returns its round, for writeDone()
   */
  writeBegins(bytes: number): number {
    this.pending += bytes;
    this.windowLeft -= bytes;
    return this.round;
  }

  /** Counts a write that the kernel has taken, or that will never be sent because its stream is gone. */
  writeDone(bytes: number, round: number): void {
    if (round === this.round) this.pending -= bytes;
    this.sent += bytes;
    if (this.sent - this.pinged >= this.maxInFlight / 4) this.sendPing();
    if (this.writers.size > 0) this.resumeWriters();
  }

  private sendPing(): void {
    const { sent, pending } = this;
    const inFlight = sent - this.confirmed + pending;
    const sentAt = performance.now();
    const isSent = this.pings.send(() => {
      this.confirmed = Math.max(this.confirmed, sent);
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
    if (isSent) this.pinged = sent;
  }

  /** Resumes a writer once the connection is no longer full. Writers that have waited longest come first. */
  waitForRoom(writer: Writer): void {
    this.writers.add(writer);
    if (!this.isAsking) this.ask();
  }

  stopWaiting(writer: Writer): void {
    this.writers.delete(writer);
  }

  private ask(): void {
    this.isAsking = true;
    const { sent } = this;
    this.pings.ask(() => {
      // No PING of sendPing() may be unanswered: when this was sent, the limit may have been larger, and a quarter of it too.
      this.confirmed = Math.max(this.confirmed, sent);
      this.pinged = Math.max(this.pinged, sent);
      if (this.window > 0) {
        this.round++;
        this.pending = 0;
      }
      this.resumeWriters();
      if (this.writers.size > 0 && !this.session.destroyed)
        setTimeout(() => this.ask(), ASK_INTERVAL);
      else this.isAsking = false;
    });
  }

  private resumeWriters(): void {
    for (const writer of this.writers) {
      if (this.isFull()) return;
      this.writers.delete(writer);
      writer.resume();
    }
  }
}
