import { type FeedError, hasMoved } from '../errors.js';
import { formatDuration } from './progress.js';

/** A failure that stays the same is said again after this many milliseconds, and then after twice as many each time. */
const FIRST_REPEAT_AFTER = 10_000;
/** The interval at which such a failure is said does not grow beyond this. */
const REPEAT_AT_LEAST_EVERY = 300_000;

/** Says that a connection broke: at once, and then less and less often while it stays broken. */
export class Reconnects {
  private brokenSince: number | undefined;
  /** The message that was said last. */
  private said = '';
  private sayAgainAt = 0;
  private interval = FIRST_REPEAT_AFTER;

  constructor(private readonly say: (text: string) => void) {}

  /** Notes that an attempt failed, and that another one follows. A call that moves to another server has not failed. */
  failed(error: FeedError): void {
    if (hasMoved(error)) return;
    const { message } = error;
    const now = performance.now();
    this.brokenSince ??= now;
    if (message !== this.said) {
      this.said = message;
      this.say(`${message}; trying again`);
    } else if (now >= this.sayAgainAt) {
      const advice = this.interval === FIRST_REPEAT_AFTER ? ' (`feed doctor` finds out why)' : '';
      this.say(
        `${message}; still trying, after ${formatDuration(now - this.brokenSince)}${advice}`,
      );
      this.interval = Math.min(this.interval * 2, REPEAT_AT_LEAST_EVERY);
    } else return;
    this.sayAgainAt = now + this.interval;
  }

  /** Notes that the connection works. Returns true if it was broken. */
  succeeded(): boolean {
    const wasBroken = this.brokenSince !== undefined;
    this.brokenSince = undefined;
    this.said = '';
    this.interval = FIRST_REPEAT_AFTER;
    return wasBroken;
  }
}
