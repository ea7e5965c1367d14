import type { FeedError } from '../errors.js';
import { formatDuration } from './progress.js';

/** A failure that stays the same is said again after so many milliseconds, and then after twice as many each time. */
const SAID_AGAIN_AFTER = 10_000;
const SAID_AT_LEAST_EVERY = 300_000;

/** Says that a connection broke: at once when it does, and then less and less often. */
export class Reconnects {
  private brokenSince: number | undefined;
  private said = '';
  private sayAgainAt = 0;
  private interval = SAID_AGAIN_AFTER;

  constructor(private readonly say: (text: string) => void) {}

  /** Notes that an attempt failed, and that another one follows. */
  failed({ message }: FeedError): void {
    const now = performance.now();
    this.brokenSince ??= now;
    if (message !== this.said) {
      this.said = message;
      this.say(`${message}; trying again`);
    } else if (now >= this.sayAgainAt) {
      const advice = this.interval === SAID_AGAIN_AFTER ? ' (`feed doctor` finds out why)' : '';
      this.say(
        `${message}; still trying, after ${formatDuration(now - this.brokenSince)}${advice}`,
      );
      this.interval = Math.min(this.interval * 2, SAID_AT_LEAST_EVERY);
    } else return;
    this.sayAgainAt = now + this.interval;
  }

  /** Notes that the connection works. Returns true if it was broken. */
  succeeded(): boolean {
    const wasBroken = this.brokenSince !== undefined;
    this.brokenSince = undefined;
    this.said = '';
    this.interval = SAID_AGAIN_AFTER;
    return wasBroken;
  }
}
