import type { LogClock } from '../../src/repository/log-clock.js';

/** Returns a clock for a log that shows the time `now()`. It behaves as a clock that was never set. */
export function testClock(now: () => number): LogClock {
  return { now, since: (wall) => wall, lag: () => 0, follow: () => {} };
}
