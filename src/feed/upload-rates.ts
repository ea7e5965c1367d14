import { setTimeout as sleep } from 'node:timers/promises';

/** A client may be ahead by this (milliseconds). */
const BURST = 1_000;
/** Node fires a timer that is longer (milliseconds) at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** What each client may upload a second; 0 is no limit. */
export interface UploadRateLimit {
  readonly events: number;
  readonly bytes: number;
}

/**
 * Holds uploads back that come faster than they may. It refuses nothing: an upload that waits is not read, and HTTP/2 holds its
 * client back. A client may be ahead by what it may send in a second.
 */
export class UploadRates {
  /** How long (milliseconds) uploads have waited in all, for those who look at the process. */
  waited = 0;
  /** For each client, the time (performance.now()) at which what it has sent until now is paid for. */
  private readonly paidAt = new Map<string, number>();
  private forgetAt = 0;

  constructor(private readonly limit: UploadRateLimit) {}

  /**
   * Counts what a client has sent. Resolves once it may send more; rejects with the signal's reason; undefined if it may do so
   * now.
   *
   * @param client a principal, or the address of a connection
   */
  take(
    client: string,
    events: number,
    bytes: number,
    signal: AbortSignal,
  ): Promise<void> | undefined {
    const { limit } = this;
    const cost = Math.max(
      limit.events > 0 ? (events / limit.events) * 1_000 : 0,
      limit.bytes > 0 ? (bytes / limit.bytes) * 1_000 : 0,
    );
    if (cost === 0) return undefined;
    const now = performance.now();
    if (now > this.forgetAt) this.forgetIdle(now);
    // A client that has sent nothing for BURST is as good as a new one.
    const paidAt = Math.max(this.paidAt.get(client) ?? 0, now - BURST) + cost;
    this.paidAt.set(client, paidAt);
    if (paidAt <= now) return undefined;
    const wait = Math.min(paidAt - now, LONGEST_TIMER);
    this.waited += wait;
    return sleep(wait, undefined, { signal }).catch(() => {
      throw signal.reason;
    });
  }

  private forgetIdle(now: number): void {
    this.forgetAt = now + BURST;
    for (const [client, paidAt] of this.paidAt)
      if (paidAt < now - BURST) this.paidAt.delete(client);
  }
}
