import type { LogClock } from '../../src/repository/log-clock.js';

/** A log's clock that is the test's, and nobody sets it. */
export function testClock(now: () => number): LogClock {
  return { now, since: (wall) => wall, lag: () => 0 };
}
