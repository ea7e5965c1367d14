import { afterEach, describe, expect, it, vi } from 'vitest';
import { logClock } from '../../src/repository/log-clock.js';

afterEach(() => vi.restoreAllMocks());

/** A log's clock on clocks that the test sets. */
function clocks(start: number, newest = 0) {
  const state = { wall: start, mono: 0 };
  vi.spyOn(Date, 'now').mockImplementation(() => state.wall);
  vi.spyOn(performance, 'now').mockImplementation(() => state.mono);
  const now = logClock(newest);
  return {
    now,
    pass: (milliseconds: number): number => {
      state.wall += milliseconds;
      state.mono += milliseconds;
      return now();
    },
    set: (wall: number): void => void (state.wall = wall),
  };
}

const HOUR = 3_600_000;

describe("the log's clock", () => {
  it('follows the machine, which does not set its clock', () => {
    const clock = clocks(1_000_000);
    expect([clock.now(), clock.pass(500), clock.pass(HOUR)]).toEqual([
      1_000_000,
      1_000_500,
      1_000_500 + HOUR,
    ]);
  });

  it.each([HOUR, -HOUR])(
    'neither jumps nor goes back when the clock is set by %d ms, and catches up slowly',
    (by) => {
      const clock = clocks(10 * HOUR);
      clock.set(10 * HOUR + by);
      let last = clock.now();
      expect(last).toBe(10 * HOUR);
      for (let i = 0; i < 60; i++) {
        const next = clock.pass(60_000);
        expect(next - last).toBeGreaterThanOrEqual(53_999);
        expect(next - last).toBeLessThanOrEqual(66_001);
        last = next;
      }
      for (let i = 0; i < 600; i++) last = clock.pass(60_000);
      expect(last).toBe(10 * HOUR + by + 660 * 60_000);
    },
  );

  it('goes on from the newest event of the log, where that is ahead', () => {
    const clock = clocks(1_000, 5_000);
    expect(clock.now()).toBe(5_000);
    expect(clock.pass(1_000)).toBeGreaterThan(5_000);
  });
});
