/** How far the time of day ran ahead of performance.now(), at most, in milliseconds. */
let ahead = -Infinity;

/**
 * Returns milliseconds on a clock that never goes back, and that goes on while the machine sleeps. performance.now() may stand
 * still then, and the time of day may be set back. If it is set forward, this clock jumps as well: what must be done within a
 * time is then given up too early, and not done too late.
 */
export function now(): number {
  ahead = Math.max(ahead, Date.now() - performance.now());
  return performance.now() + ahead;
}

/** The longest time of a timer, in milliseconds: 24 days. Node makes a longer one fire at once. */
export const LONGEST_TIMER = 2 ** 31 - 1;

/** Throws unless `value` is a valid time. @param what begins the error's sentence: the option's name */
export function checkDate(what: string, value: unknown): void {
  if (!(value instanceof Date && Number.isFinite(value.getTime())))
    throw new TypeError(`${what} is a valid Date`);
}
