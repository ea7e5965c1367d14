import { queryObjects } from 'node:v8';
import { describe, expect, it } from 'vitest';
import { FollowedSet, PLACE_BYTES } from '../../src/repository/followed-sets.js';
import type { StoredRun } from '../../src/repository/stored-run.js';
import { Tail } from '../../src/repository/tail.js';
import { TopicSet } from '../../src/wire/topic-set.js';

/** A run of one event, which is no event: the tail does not look into it. */
const run = (topic: string, position: number, size = 100): StoredRun => ({
  topic,
  first: position,
  last: position,
  count: 1,
  bytes: Buffer.alloc(size),
  storedAt: 0,
});

/** Adds runs of `t` until the tail drops its oldest ones, and returns how many it holds. */
function capacity(tail: Tail, from: number): number {
  for (let position = from; ; position++) {
    const { horizon } = tail;
    tail.add(run('t', position));
    if (tail.horizon > horizon && horizon >= from) return position - tail.horizon;
  }
}

describe('the tail', () => {
  it('counts what sets keep of it as its own, and no longer once nobody follows them', () => {
    const tail = new Tail(0, 100_000);
    const alone = capacity(tail, 1);
    const sets = Array.from({ length: 50 }, (_, i) =>
      tail.sets.follow(new TopicSet(['t', `other.${i}`]), tail.horizon),
    );
    const shared = capacity(tail, 10_000);
    expect(shared).toBeLessThan(alone / 2);
    expect(shared).toBe(Math.floor(100_000 / (500 + 50 * PLACE_BYTES)));
    for (const set of sets) tail.leave(set);
    expect(capacity(tail, 20_000)).toBe(alone);
  });

  it('holds no set that nobody follows any more', () => {
    const tail = new Tail(0, 2_000);
    const before = queryObjects(FollowedSet, { format: 'count' });
    (() => {
      const set = tail.sets.follow(new TopicSet(['t', 'u']), 0);
      tail.add(run('t', 1));
      expect(queryObjects(FollowedSet, { format: 'count' })).toBe(before + 1);
      tail.leave(set);
    })();
    expect(queryObjects(FollowedSet, { format: 'count' })).toBe(before);
    // It is in use.
    expect(tail.horizon).toBe(0);
  });

  it('drops a run from the sets that have it, and leaves the others as they are', () => {
    const tail = new Tail(0, 2_000);
    tail.add(run('t', 1));
    tail.add(run('t', 2));
    const set = tail.sets.follow(new TopicSet(['t', 'u']), 2);
    tail.add(run('u', 3));
    tail.add(run('t', 4));
    expect(tail.horizon).toBe(1);
    expect(set.read(2, 1_000)).toMatchObject({ count: 2, last: 4 });
    for (const position of [5, 6, 7]) tail.add(run('other', position));
    expect(tail.horizon).toBeGreaterThanOrEqual(4);
    expect(set.runs.oldest).toBeUndefined();
    expect(set.places).toBe(0);
  });

  it('has one list for the readers of the same topics, in whatever order they name them', () => {
    const tail = new Tail(0, 10_000);
    const one = tail.sets.follow(new TopicSet(['a', 'b.>']), 0);
    expect(tail.sets.follow(new TopicSet(['b.>', 'a']), 0)).toBe(one);
    tail.leave(one);
    tail.add(run('b.c', 1));
    expect(one.read(0, 1_000)).toMatchObject({ count: 1 });
    expect(one.read(0, 1_000)).toBe(one.read(0, 1_000));
    tail.leave(one);
    tail.add(run('b.c', 2));
    expect(one.read(1, 1_000)).toBeUndefined();
  });

  it('keeps nothing of the runs that it has dropped, of however many topics they were', () => {
    class Bytes extends Uint8Array {}
    const tail = new Tail(0, 1_000_000);
    for (let position = 1; position <= 20_000; position++)
      tail.add({ ...run(`t${position % 200}`, position), bytes: new Bytes(100) as Buffer });
    // It collects what nobody refers to first.
    const count = queryObjects(Bytes, { format: 'count' });
    expect(count).toBeLessThanOrEqual(1_000_000 / 500 + 1);
    // It is in use, and so are the runs that it holds.
    expect(count).toBeGreaterThanOrEqual(1_000_000 / 500 - 1);
    expect(tail.horizon).toBeGreaterThan(0);
  });
});
