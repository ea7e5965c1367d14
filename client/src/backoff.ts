import { setTimeout as sleep } from 'node:timers/promises';
import { LONGEST_TIMER } from './clock.js';
import { type FeedError, hasMoved } from './errors.js';

/** How long a client waits between attempts, in milliseconds. */
export interface RetryOptions {
  /** The wait before the second attempt; the first follows at once. 100 by default. */
  readonly initial?: number;
  /** Waits double up to this. 10,000 by default. */
  readonly max?: number;
}

/**
 * The waits between attempts: none at first, then doubled each time. Each is random between half of that and all of it, so
 * that clients do not come at the same moment.
 */
export class Backoff {
  private failures = 0;

  constructor(private readonly options: RetryOptions = {}) {}

  /** The number of waits since the last reset. */
  get attempt(): number {
    return this.failures;
  }

  /** Returns the next wait, in milliseconds. */
  next(): number {
    const { initial = 100, max = 10_000 } = this.options;
    if (this.failures++ === 0) return 0;
    const longest = Math.min(max, initial * 2 ** (this.failures - 2));
    return longest * (0.5 + Math.random() / 2);
  }

  /** Returns the wait after a call that ended with `error`: none after one that moves, because that is no failure. */
  nextAfter(error: FeedError): number {
    if (hasMoved(error)) this.reset();
    return this.next();
  }

  /** Notes that an attempt succeeded: the next wait is none again. */
  reset(): void {
    this.failures = 0;
  }
}

/** Waits, and stops waiting without an error when the signal fires. */
export async function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(Math.min(milliseconds, LONGEST_TIMER), undefined, { signal }).catch(() => {});
}
