/** How fast the log's time may run to catch up with a clock that was set: 10% more or less than real time. */
const SLEW = 0.1;
/** The machine's clock was set where it is so much (milliseconds) ahead of the log's time. */
const LEAST_LAG = 1_000;

/**
 * The log's own time, in milliseconds: near the machine's clock, but never going back and never jumping, so that
 * setting the clock neither ends a deduplication window nor makes events old.
 */
export interface LogClock {
  readonly now: () => number;

  /**
   * The earliest that the log's time can have been at a time of the machine's clock that is not in the future: who asks
   * for events since then misses none.
   */
  readonly since: (wall: number) => number;

  /** By how much (milliseconds) the machine's clock was ever ahead of the log's time, because it was set. */
  readonly lag: () => number;
}

/** When a log last stored something, by its own time and, if that is known, by the machine's clock. */
export interface LastStored {
  readonly storedAt: number;
  readonly wall?: number;
  /** The clock's lag until then. */
  readonly lag?: number;
}

/** Goes on from where the log was: time passed since then as far as the machine's clock says that it did. */
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
