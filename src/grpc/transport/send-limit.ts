import type { ServerHttp2Session } from 'node:http2';
import type { Pings } from './pings.js';

/** A stream's pump that waits for room on its connection. */
export interface Writer {
  /** Writes once, unless the connection is full again. */
  resume(): void;
}

/** The limit on bytes in flight starts here, and never falls below it. */
const LEAST_IN_FLIGHT = 128 * 1024;
/** It never rises above this: 4 MiB in flight are 80 MB/s over a round trip of 50 ms. */
const MOST_IN_FLIGHT = 4 * 2 ** 20;
/** If an answer to a PING takes this much longer (ms) than the fastest one, the link has a queue: the limit is halved. */
const LONG_WAIT = 2_000;
/** If it takes less than this much longer (milliseconds), and half of the limit was in flight, the limit is doubled. */
const SHORT_WAIT = 500;
/** While writers wait, the client gets a PING this often (milliseconds): node does not tell when the client opens its window. */
const PING_INTERVAL = 20;

/**
 * Says when the streams of one connection may write.
 *
 * **Bytes in flight.** A done write shows only that the kernel had room for it. So a PING follows each quarter of the limit,
 * and its answer confirms that the client has received what was sent before it. The limit adapts to the link: no more is in
 * flight than the link carries in a second or two. So even a slow link answers PINGs within seconds, and a result does not
 * wait behind megabytes of events.
 *
 * **The client's receive window of the connection.** nghttp2 sends the writes that wait for this window in no fair order:
 * streams that write often starve others for good (test/faults/slow-links.spec.ts). So all streams together write no more than
 * the window has room for, in turn.
 *
 * A write may also wait for the window of its own stream, as long as the client likes, and must not block other streams. A
 * PING overtakes such a write: if the connection's window is open when the answer comes, every write that is still pending
 * waits for its own stream. Then a new *round* begins: the pending writes of earlier rounds no longer count.
 */
export class SendLimit {
  private maxInFlight = LEAST_IN_FLIGHT;
  /** The total of bytes that the kernel has taken. */
  private sent = 0;
  /** The value of `sent` when the newest PING was sent. */
  private pinged = 0;
  /** The value of `sent` when the newest answered PING was sent: the client has read these bytes. */
  private confirmed = 0;
  /** The fastest answer to a PING, in milliseconds. */
  private roundTrip = Infinity;

  /** Bytes written in this round that the kernel has not taken. */
  private pending = 0;
  private round = 0;
  /** At least this many bytes of the connection's window are free. The window is read again once they are used. */
  private windowLeft = 0;

  private readonly writers = new Set<Writer>();
  private isPinging = false;

  constructor(
    private readonly session: ServerHttp2Session,
    private readonly pings: Pings,
  ) {}

  /** True while no stream should write. False after GOAWAY, when node sends no PINGs and nothing would be confirmed. */
  isFull(): boolean {
    const inFlight = this.sent - this.confirmed + this.pending;
    return (inFlight >= this.maxInFlight || this.isWindowTaken()) && !this.session.closed;
  }

  private isWindowTaken(): boolean {
    // One write may always be pending: it is done when the window opens.
    if (this.windowLeft > 0 || this.pending === 0) return false;
    this.windowLeft = this.window - this.pending;
    return this.windowLeft <= 0;
  }

  /** How many bytes the client allows all streams of the connection together. */
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
    if (!this.isPinging) this.pingForWriters();
  }

  stopWaiting(writer: Writer): void {
    this.writers.delete(writer);
  }

  private pingForWriters(): void {
    this.isPinging = true;
    const { sent } = this;
    this.pings.ask(() => {
      // This PING confirms as well. sendPing() may have sent none after the bytes in flight: when they were sent, the limit may
      // have been larger, and so a quarter of it.
      this.confirmed = Math.max(this.confirmed, sent);
      this.pinged = Math.max(this.pinged, sent);
      if (this.window > 0) {
        this.round++;
        this.pending = 0;
      }
      this.resumeWriters();
      if (this.writers.size > 0 && !this.session.destroyed)
        setTimeout(() => this.pingForWriters(), PING_INTERVAL);
      else this.isPinging = false;
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
