/** How fast the log's time may run to catch up with a clock that was set: 10% more or less than real time. */
const SLEW = 0.1;

/**
 * The log's own time, in milliseconds: near the machine's clock, but never going back and never jumping, so that
 * setting the clock neither ends a deduplication window nor makes events old.
 */
export interface LogClock {
  readonly now: () => number;

  /**
   * The log's time for a time of the machine's clock that is not in the future. Where the two differ, the earlier
   * one of what either clock means by it: who asks for events since then misses none.
   */
  readonly since: (wall: number) => number;
}

/** When a log last stored something, by its own time and, if that is known, by the machine's clock. */
export interface LastStored {
  readonly storedAt: number;
  readonly wall?: number;
}

/** Goes on from where the log was: time passed since then as far as the machine's clock says that it did. */
export function logClock({ storedAt, wall = storedAt }: LastStored): LogClock {
  let time = storedAt === 0 ? Date.now() : storedAt + Math.max(0, Date.now() - wall);
  let readAt = performance.now();
  const now = (): number => {
    const at = performance.now();
    const elapsed = at - readAt;
    readAt = at;
    const behind = Date.now() - (time + elapsed);
    time += elapsed + Math.min(Math.max(behind, -SLEW * elapsed), SLEW * elapsed);
    return Math.floor(time);
  };
  return { now, since: (then) => Math.min(then, now() - (Date.now() - then)) };
}
