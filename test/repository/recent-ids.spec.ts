import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
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
}

describe('RecentIds', () => {
  it('remembers the newest ids within its window, and no others', () => {
    const step = fc.oneof(
      fc.record({ add: fc.tuple(fc.nat(3), fc.nat(12)), wait: fc.nat(120) }),
      fc.record({ undo: fc.nat(5) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const recent = new RecentIds(WINDOW);
        const model = new Model();
        let now = 1_000_000;
        let overwritten = 0;
        for (const [position, one] of steps.entries()) {
          if ('add' in one) {
            now += one.wait;
            const [high, low] = one.add;
            recent.add(high, low, position, now);
            model.entries.push({ high, low, position, at: now });
          } else {
            // What was overwritten by an entry that is forgotten does not come back.
            const undo = Math.min(one.undo, model.entries.length);
            if (model.entries.length > WINDOW.ids) overwritten += undo;
            recent.forget(undo);
            model.entries.splice(model.entries.length - undo, undo);
          }
          for (let high = 0; high <= 3; high++) {
            for (let low = 0; low <= 12; low++) {
              const found = recent.find(high, low, now, (at) =>
                model.entries.some((e) => e.position === at),
              );
              const expected = model.find(high, low, now);
              if (found !== expected) {
                // Only the oldest, and only where entries were forgotten.
                expect(overwritten).toBeGreaterThan(0);
                expect(found).toBeUndefined();
              }
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

  it('of no size remembers nothing', () => {
    const recent = new RecentIds({ ids: 0, milliseconds: 0 });
    recent.add(1, 2, 3, 4);
    recent.forget(1);
    expect(recent.find(1, 2, 4, () => true)).toBeUndefined();
    expect(recent.oldest).toBe(Infinity);
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
    expect(recent.oldest).toBe(200_000);
  });
});
