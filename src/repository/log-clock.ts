/** The log's time approaches the machine's clock by running up to this share faster or slower than real time. */
const SLEW = 0.1;
/**
 * If the machine's clock is this much (milliseconds) ahead of the log's time, somebody has set it. Less is what rounding makes of the
 * two.
 */
const LEAST_LAG = 2;

/**
 * The log's own time, in milliseconds. It follows the machine's clock, but never goes back, and jumps only to what another process
 * has stored, so that setting that clock neither ends a deduplication window nor makes events old. If the clock is set ahead by an hour, the log's
 * time follows in ten hours, during which it runs 10% faster.
 */
export interface LogClock {
  readonly now: () => number;

  /**
   * Returns the earliest time that the log can have had at a time of the machine's clock; Infinity for a time that is in the future,
   * both by that clock and by the log's. No event that was stored at or after `wall` has an earlier time.
   */
  readonly since: (wall: number) => number;

  /** The most (milliseconds) that the machine's clock was ever ahead of the log's time, because somebody had set it. */
  readonly lag: () => number;

  /**
   * Another process has stored something in the same log, at a time of the log and with the lag of its clock. The time goes on from
   * there, if that is later: else it would stand still until the machine's clock is there.
   */
  readonly follow: (storedAt: number, lag: number) => void;
}

/** When a log last stored something: `storedAt` by its own time, and `wall`, if known, by the machine's clock. */
export interface LastStored {
  readonly storedAt: number;
  readonly wall?: number;
  /** The clock's lag until then. */
  readonly lag?: number;
}

/**
 * Makes a clock that continues the log's time. For the time while the log was closed, it trusts the machine's clock, but does not
 * go beyond it: where that was behind when something was stored last, and was set right since, nobody knows how long the log was
 * closed.
 */
export function logClock({ storedAt, wall = storedAt, lag = 0 }: LastStored): LogClock {
  let readAt = performance.now();
  const start = Date.now();
  let time = storedAt === 0 ? start : Math.max(storedAt, Math.min(storedAt + start - wall, start));
  const now = (): number => {
    // The process may have to wait for its turn between two looks, so the machine's clock is between these two at `at`.
    const least = Date.now();
    const at = performance.now();
    const most = Date.now();
    const elapsed = at - readAt;
    readAt = at;
    time += elapsed;
    const behind = Math.max(0, least - time) + Math.min(0, most - time);
    time += Math.min(Math.max(behind, -SLEW * elapsed), SLEW * elapsed);
    const ahead = least - time;
    if (ahead >= LEAST_LAG) lag = Math.max(lag, Math.ceil(ahead));
    return Math.floor(time);
  };
  const since = (then: number): number => {
    const log = now();
    const machine = Date.now();
    return then > Math.max(log, machine)
      ? Infinity
      : then - Math.max(LEAST_LAG, machine - log, lag);
  };
  const follow = (otherStoredAt: number, otherLag: number): void => {
    lag = Math.max(lag, otherLag);
    if (otherStoredAt > now()) time = otherStoredAt;
  };
  return { now, since, lag: () => lag, follow };
}
