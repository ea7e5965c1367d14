import { afterEach, describe, expect, it, vi } from 'vitest';
import { type LastStored, logClock } from '../../src/repository/log-clock.js';

afterEach(() => vi.restoreAllMocks());

/** A log's clock on clocks that the test sets. */
function clocks(start: number, last: LastStored = { storedAt: 0 }) {
  const state = { wall: start, mono: 0 };
  vi.spyOn(Date, 'now').mockImplementation(() => state.wall);
  vi.spyOn(performance, 'now').mockImplementation(() => state.mono);
  const clock = logClock(last);
  const { now } = clock;
  return {
    ...clock,
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
    const clock = clocks(1_000, { storedAt: 5_000 });
    expect(clock.now()).toBe(5_000);
    expect(clock.pass(1_000)).toBeGreaterThan(5_000);
  });

  it('after a restart goes on from where it was, though the clock had been set ahead', () => {
    const clock = clocks(11 * HOUR + 5_000, { storedAt: 10 * HOUR, wall: 11 * HOUR });
    expect(clock.now()).toBe(10 * HOUR + 5_000);
  });

  it('after a restart stands still, and does not go back, where the clock had been set back', () => {
    const clock = clocks(9 * HOUR + 5_000, { storedAt: 10 * HOUR, wall: 9 * HOUR });
    expect(clock.now()).toBe(10 * HOUR);
  });

  it('takes no clock that is set right while the log is closed for time that has passed', () => {
    const wall = 10 * HOUR - 240 * HOUR;
    expect(clocks(10 * HOUR + 5_000, { storedAt: 10 * HOUR, wall }).now()).toBe(10 * HOUR + 5_000);
  });

  it('goes on from what another process has stored, where that is ahead', () => {
    const clock = clocks(10 * HOUR);
    clock.follow(9 * HOUR, 0);
    expect(clock.now()).toBe(10 * HOUR);
    clock.follow(34 * HOUR, 5_000);
    expect(clock.now()).toBe(34 * HOUR);
    expect(clock.pass(10_000)).toBe(34 * HOUR + 9_000);
    expect(clock.lag()).toBe(5_000);
  });

  it('finds what was stored before the clock was set back, since a time that is in the future now', () => {
    const clock = clocks(10 * HOUR);
    expect(clock.since(10 * HOUR + 1)).toBe(Infinity);
    clock.set(9 * HOUR);
    expect(clock.since(10 * HOUR - 5_000)).toBe(10 * HOUR - 5_002);
    expect(clock.since(10 * HOUR + 1)).toBe(Infinity);
  });

  it('finds what was stored before it had caught up with a step of some hundredths of a second', () => {
    const clock = clocks(10 * HOUR);
    clock.set(10 * HOUR + 50);
    const storedAt = clock.pass(100);
    clock.pass(60_000);
    expect(clock.since(10 * HOUR + 150)).toBeLessThanOrEqual(storedAt);
  });

  it('is not taken for one that lags behind where the process waited between two looks at its clocks', () => {
    const clock = clocks(10 * HOUR);
    vi.spyOn(performance, 'now').mockReturnValueOnce(1_070);
    const machine = vi.spyOn(Date, 'now');
    machine.mockReturnValueOnce(10 * HOUR + 1_000).mockReturnValueOnce(10 * HOUR + 1_100);
    expect(clock.now()).toBe(10 * HOUR + 1_070);
    expect(clock.lag()).toBe(0);
  });

  it('takes a clock that was set back while the log was closed for no time at all', () => {
    expect(clocks(9 * HOUR, { storedAt: 10 * HOUR, wall: 10 * HOUR }).now()).toBe(10 * HOUR);
  });

  it('finds what was stored since a time, by the clock before and after it was set', () => {
    const clock = clocks(10 * HOUR);
    expect(clock.since(9 * HOUR)).toBe(9 * HOUR - 2);
    clock.set(11 * HOUR); // an hour ahead: the log's time is still 10
    expect(clock.since(11 * HOUR - 1_000)).toBe(10 * HOUR - 1_000);
    expect(clock.since(9 * HOUR)).toBe(8 * HOUR);
    clock.set(9 * HOUR); // an hour back
    expect(clock.since(10 * HOUR)).toBeLessThanOrEqual(9 * HOUR);
  });

  it.each(['in one run', 'over a restart'])(
    'finds what was stored while it lagged behind, once it has caught up, %s',
    (when) => {
      let clock = clocks(10 * HOUR);
      clock.set(11 * HOUR);
      const storedAt = clock.pass(60_000);
      const wall = 11 * HOUR + 60_000;
      expect(clock.since(11 * HOUR)).toBeLessThanOrEqual(storedAt);
      if (when !== 'in one run') clock = clocks(wall, { storedAt, wall, lag: clock.lag() });
      for (let i = 0; i < 12 * 60; i++) clock.pass(60_000);
      expect(Date.now() - clock.now()).toBeLessThan(1_000);
      expect(clock.since(11 * HOUR)).toBeLessThanOrEqual(storedAt);
    },
  );
});
