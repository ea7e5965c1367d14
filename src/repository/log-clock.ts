/** The log's time approaches the machine's clock by running up to this share faster or slower than real time. */
const SLEW = 0.1;
/** If the machine's clock is this much (milliseconds) ahead of the log's time, somebody has set it. */
const LEAST_LAG = 1_000;

/**
 * The log's own time, in milliseconds. It follows the machine's clock, but never jumps or goes back, so that setting
 * that clock neither ends a deduplication window nor makes events old. If the clock is set ahead by an hour, the log's
 * time follows in ten hours, during which it runs 10% faster.
 */
export interface LogClock {
  readonly now: () => number;

  /**
   * Returns the earliest time that the log can have had at a time of the machine's clock, which is not in the future.
   * No event that was stored at or after `wall` has an earlier time.
   */
  readonly since: (wall: number) => number;

  /** The most (milliseconds) that the machine's clock was ever ahead of the log's time, because somebody had set it. */
  readonly lag: () => number;
}

/** When a log last stored something: `storedAt` by its own time, and `wall`, if known, by the machine's clock. */
export interface LastStored {
  readonly storedAt: number;
  readonly wall?: number;
  /** The clock's lag until then. */
  readonly lag?: number;
}

/** Makes a clock that continues the log's time. For the time while the log was closed, it trusts the machine's clock. */
export function logClock({ storedAt, wall = storedAt, lag = 0 }: LastStored): LogClock {
  let time = storedAt === 0 ? Date.now() : storedAt + Math.max(0, Date.now() - wall);
  let readAt = performance.now();
  const now = (): number => {
    const at = performance.now();
    const elapsed = at - readAt;
    readAt = at;
    const behind = Date.now() - (time + elapsed);
    time += elapsed + Math.min(Math.max(behind, -SLEW * elapsed), SLEW * elapsed);
    const ahead = Date.now() - time;
    if (ahead >= LEAST_LAG) lag = Math.max(lag, Math.ceil(ahead));
    return Math.floor(time);
  };
  const since = (then: number): number => then - Math.max(0, Date.now() - now(), lag);
  return { now, since, lag: () => lag };
}
