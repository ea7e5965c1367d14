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
  /** How long (milliseconds) uploads have waited in all, for those who look at the process. A wait is counted once it is over. */
  waited = 0;
  /** For each client, the time (performance.now()) at which what it has sent until now is paid for. */
  private readonly paidAt = new Map<string, number>();
  private forgetAt = 0;

  constructor(private readonly limit: UploadRateLimit) {}

  /**
   * Counts what a client has sent, and returns how long (milliseconds) it has to be held before it may send more; 0 if not at
   * all.
   *
   * @param client a principal, or the address of a connection
   */
  take(client: string, events: number, bytes: number): number {
    const { limit } = this;
    const cost = Math.max(
      limit.events > 0 ? (events / limit.events) * 1_000 : 0,
      limit.bytes > 0 ? (bytes / limit.bytes) * 1_000 : 0,
    );
    if (cost === 0) return 0;
    const now = performance.now();
    if (now > this.forgetAt) this.forgetIdle(now);
    // A client that has sent nothing for BURST is as good as a new one.
    const paidAt = Math.max(this.paidAt.get(client) ?? 0, now - BURST) + cost;
    this.paidAt.set(client, paidAt);
    if (paidAt <= now) return 0;
    return Math.min(paidAt - now, LONGEST_TIMER);
  }

  /** Waits for as long as take() returned. Rejects with the signal's reason once that aborts. */
  async hold(wait: number, signal: AbortSignal): Promise<void> {
    const start = performance.now();
    try {
      await sleep(wait, undefined, { signal });
    } catch {
      throw signal.reason;
    } finally {
      this.waited += performance.now() - start;
    }
  }

  private forgetIdle(now: number): void {
    this.forgetAt = now + BURST;
    for (const [client, paidAt] of this.paidAt)
      if (paidAt < now - BURST) this.paidAt.delete(client);
  }
}
