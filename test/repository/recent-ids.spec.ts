import * as fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { RecentIds } from '../../src/repository/recent-ids.js';

const WINDOW = { ids: 20, milliseconds: 1_000 };

/** What RecentIds promises, the slow way. */
class Model {
  entries: { high: number; low: number; position: number; at: number }[] = [];

  find(high: number, low: number, now: number): number | undefined {
    const found = this.entries
      .slice(-WINDOW.ids)
      .toReversed()
      .find(
        (entry) =>
          entry.high === high && entry.low === low && entry.at >= now - WINDOW.milliseconds,
      );
    return found?.position;
  }

  oldest(now: number): number {
    const held = this.entries.slice(-WINDOW.ids);
    return held.find(({ at }) => at >= now - WINDOW.milliseconds)?.position ?? Infinity;
  }
}

describe('RecentIds', () => {
  it('remembers the newest ids within its window, and none that were rolled back', () => {
    const id = fc.tuple(fc.nat(3), fc.nat(12));
    const step = fc.record({
      added: fc.array(id, { maxLength: 40 }),
      isKept: fc.boolean(),
      wait: fc.nat(120),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const recent = new RecentIds(WINDOW);
        const model = new Model();
        let now = 1_000_000;
        let position = 0;
        for (const { added, isKept, wait } of steps) {
          now += wait;
          const before = [...model.entries];
          recent.mark();
          for (const [high, low] of added) {
            recent.add(high, low, ++position, now);
            model.entries.push({ high, low, position, at: now });
            expect(recent.find(high, low, now, () => true)).toBe(position);
          }
          if (!isKept) {
            recent.oldest(now);
            recent.rollBack();
            model.entries = before;
          }
          expect(recent.oldest(now)).toBe(model.oldest(now));
          for (let h = 0; h <= 3; h++) {
            for (let l = 0; l <= 12; l++) {
              expect(recent.find(h, l, now, () => true)).toBe(model.find(h, l, now));
            }
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it('asks about every id with the hash, newest first, until one is the same', () => {
    const recent = new RecentIds({ ids: 1000, milliseconds: 1_000 });
    for (let position = 1; position <= 500; position++) recent.add(7, position % 2, position, 0);
    const asked: number[] = [];
    const found = recent.find(7, 1, 0, (position) => asked.push(position) === 3);
    expect([found, asked]).toEqual([495, [499, 497, 495]]);
  });

  it('finds each id in few steps, also where somebody has made ids for the same part of it', () => {
    const ids = 2_000;
    const recent = new RecentIds({ ids, milliseconds: 1_000 });
    // Each look at an entry asks for its age.
    const looks = vi.spyOn(recent as unknown as { ageOf(slot: number): number }, 'ageOf');
    const hashes = Array.from({ length: ids }, (_, i) => [7 * i, (i << 20) | 5] as const);
    for (const [i, [high, low]] of hashes.entries()) recent.add(high, low, i + 1, 0);
    for (const [i, [high, low]] of hashes.entries())
      expect(recent.find(high, low, 0, () => true)).toBe(i + 1);
    expect(looks.mock.calls.length).toBeLessThan(20 * ids);
  });

  it('asks about few of very many ids that somebody has made to have the same hash', () => {
    const recent = new RecentIds({ ids: 1_000, milliseconds: 1_000 });
    for (let position = 1; position <= 500; position++) recent.add(7, 1, position, 0);
    const asked: number[] = [];
    const find = (wanted: number) =>
      recent.find(7, 1, 0, (position) => asked.push(position) > 0 && position === wanted);
    expect(find(1)).toBeUndefined();
    expect(asked).toEqual([500, 499, 498, 497, 496, 495, 494, 493]);
    expect(find(493)).toBe(493);
  });

  it('of no size remembers nothing', () => {
    const recent = new RecentIds({ ids: 0, milliseconds: 0 });
    recent.add(1, 2, 3, 4);
    expect(recent.find(1, 2, 4, () => true)).toBeUndefined();
    expect(recent.oldest(4)).toBe(Infinity);
  });

  it('grows to a million ids and finds each', () => {
    const recent = new RecentIds({ ids: 1_000_000, milliseconds: 1_000 });
    for (let i = 0; i < 1_200_000; i++) recent.add(i >>> 3, Math.imul(i, 0x9e3779b1) >>> 0, i, 0);
    for (let i = 0; i < 1_200_000; i += 997) {
      const found = recent.find(
        i >>> 3,
        Math.imul(i, 0x9e3779b1) >>> 0,
        0,
        (position) => position === i,
      );
      expect(found).toBe(i < 200_000 ? undefined : i);
    }
    expect(recent.oldest(0)).toBe(200_000);
  });

  it('knows its oldest id, by number and by time', () => {
    const recent = new RecentIds({ ids: 10, milliseconds: 100 });
    const oldest = Array.from({ length: 30 }, (_, i) => {
      recent.add(i, i, i, 20 * i);
      return recent.oldest(20 * i);
    });
    expect(oldest).toEqual(Array.from({ length: 30 }, (_, i) => Math.max(0, i - 5)));
    for (let i = 30; i < 60; i++) recent.add(i, i, i, 600); // more at a time than it has room for
    expect(recent.oldest(600)).toBe(50);
    expect(recent.oldest(701)).toBe(Infinity);
    recent.add(60, 60, 60, 701);
    expect(recent.oldest(701)).toBe(60);
  });
});
