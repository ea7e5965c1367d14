import * as fc from 'fast-check';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  type DedupWindow,
  type EventRepository,
  EventsRemovedError,
} from '../../src/repository/event-repository.js';
import type { Engine } from '../../src/repository/engine.js';
import { EventLog } from '../../src/repository/event-log.js';
import { MemoryEngine } from '../../src/repository/memory/memory-engine.js';
import { KEEP_ALL, type RetentionLimits } from '../../src/repository/retention.js';
import type { RunList } from '../../src/repository/run-list.js';
import type { Run } from '../../src/wire/event-batch.js';
import { checked, eventsIn } from '../wire/events.js';
import { temporaryDirectory } from '../support/service.js';
import { eventually, until } from '../support/wait.js';
import { openCheckedLog } from './checked-lmdb.js';
import { testClock } from './test-clock.js';

let now = 1_000_000;

type Open = (
  directory: string,
  retention: RetentionLimits,
  dedup?: DedupWindow,
) => EventRepository | Promise<EventRepository>;
const engines: [string, Open][] = [
  [
    'lmdb',
    (directory, retention, dedup) =>
      openCheckedLog({
        directory,
        fsync: false,
        retention,
        dedup,
        clock: testClock(() => now),
      }),
  ],
  [
    'memory',
    (_directory, retention, dedup) =>
      new EventLog(new MemoryEngine(), { retention, dedup, clock: testClock(() => now) }),
  ],
];

interface Counted {
  getKeysCount(): number;
}

/** Returns the engine of a log, which is private. */
const engineOf = (log: EventRepository) => (log as unknown as { engine: unknown }).engine;

/** Returns the ids of a topic's events after its floor, in order. */
async function held(log: EventRepository, topic: string): Promise<string[]> {
  const ids: string[] = [];
  let position = await log.floor(topic);
  for (
    let batch = await log.read(topic, position, 4096);
    batch;
    batch = await log.read(topic, position, 4096)
  ) {
    ids.push(...eventsIn(batch.bytes).map(({ id }) => id));
    position = batch.last;
  }
  return ids;
}

describe.each(engines)('retention (%s)', (engine, openAt) => {
  async function open(limits: Partial<RetentionLimits>, directory = temporaryDirectory()) {
    const log = await openAt(directory, { ...KEEP_ALL, ...limits });
    let isOpen = true;
    const close = async (): Promise<void> => {
      if (isOpen) await log.close();
      isOpen = false;
    };
    onTestFinished(close);
    const append = (topic: string, id: string, bytes = 0) =>
      log.openWriter().append(checked({ topic, id, body: 'x'.repeat(bytes) }));
    return { log, append, close, directory };
  }

  it('keeps everything without limits', async () => {
    const { log, append } = await open({});
    for (let i = 0; i < 50; i++) {
      await append('t', String(i), 1000);
      now += 1_000_000;
    }
    expect(await held(log, 't')).toHaveLength(50);
    expect(await log.floor('t')).toBe(0);
  });

  it('removes events by age, from the old end, and moves the floor', async () => {
    const { log, append } = await open({ maxAge: 1_000 });
    const positions: number[] = [];
    for (let i = 0; i < 10; i++) {
      positions.push((await append('t', String(i))).last.position);
      now += 200;
    }
    await append('u', 'another');
    const ids = await held(log, 't');
    expect(ids).toEqual(['5', '6', '7', '8', '9']);
    expect(await log.heldOf('t')).toMatchObject({
      events: 5,
      oldest: { position: positions[5] },
      newest: { position: positions[9] },
    });
    expect(await log.countAfter('t', positions[7])).toBe(2);
    expect(await log.countAfter('t', positions[0])).toBe(5);
    expect(await log.floor('t')).toBe(positions[4]);
    expect(await log.floor('u')).toBe(0);
  });

  it('removes events by age although no new ones come', async () => {
    const { log, append } = await open({ maxAge: 1_000 });
    const { last } = await append('t', 'a');
    now += 1_100;
    await eventually(async () => expect(await log.floor('t')).toBe(last.position));
    expect(await held(log, 't')).toEqual([]);
    // The topic can be written again, at higher positions.
    const next = await append('t', 'b');
    expect(next.last.position).toBeGreaterThan(last.position);
    expect(await held(log, 't')).toEqual(['b']);
    expect(await log.positionBeforeLast('t', 5, log.head)).toBe(last.position);
  });

  it('removes the oldest events of all topics over a limit of bytes', async () => {
    const { log, append } = await open({ maxBytes: 20_000 });
    for (let i = 0; i < 60; i++) await append(`t${i % 3}`, String(i), 1000);
    const all = [
      ...(await held(log, 't0')),
      ...(await held(log, 't1')),
      ...(await held(log, 't2')),
    ];
    expect(all.length).toBeGreaterThanOrEqual(17);
    expect(all.length).toBeLessThanOrEqual(20);
    // Those that stay are the newest, without a gap.
    const numbers = all.map(Number).toSorted((a, b) => a - b);
    expect(numbers).toEqual(Array.from({ length: all.length }, (_, i) => 60 - all.length + i));
  });

  it('removes events of a topic over its limit of bytes, and none of other topics', async () => {
    const { log, append } = await open({ topicMaxBytes: 10_000 });
    await append('small', 'a', 1000);
    for (let i = 0; i < 40; i++) await append('big', String(i), 1000);
    await append('huge', 'only', 50_000);
    const ids = await held(log, 'big');
    expect(ids.length).toBeLessThanOrEqual(11);
    expect(ids).toEqual(Array.from({ length: ids.length }, (_, i) => String(40 - ids.length + i)));
    expect(await held(log, 'small')).toEqual(['a']);
    expect(await held(log, 'huge')).toEqual(['only']);
  });

  it('frees quota by what it removes of a topic', async () => {
    const { log, append } = await open({ topicMaxBytes: 4_000, quotaBytes: 7_000 });
    for (let i = 0; i < 10; i++) await append('t', String(i), 2_900);
    expect((await held(log, 't')).at(-1)).toBe('9');
    await expect(append('u', 'large', 7_000)).rejects.toMatchObject({ reason: 'storage-full' });
    expect(await held(log, 'u')).toEqual([]);
  });

  it('says which event is the oldest that is held, also where topics were removed', async () => {
    const { log, append } = await open({});
    const oldest = async () => (await log.status()).oldest;
    expect(await oldest()).toBeUndefined();
    for (let i = 0; i < 10; i++) await append('first', String(i));
    now += 1_000;
    const { last } = await log
      .openWriter()
      .append(checked({ topic: 'second', id: '' }, { topic: 'third', id: '' }));
    await append('first', 'newer');
    expect(await oldest()).toEqual({ position: 1, time: now - 1_000 });
    await log.removeTopic('first');
    expect(await oldest()).toEqual({ position: last.position - 1, time: now });
    await log.removeTopic('second');
    expect(await oldest()).toEqual({ position: last.position, time: now });
    await log.removeTopic('third');
    expect(await oldest()).toBeUndefined();
    now += 1_000;
    const next = await append('first', 'again');
    expect(await oldest()).toEqual({ position: next.last.position, time: now });
  });

  it('refuses what is over the quota, and nothing that came with it', async () => {
    const dedup = { ids: 100, milliseconds: 60_000 };
    const log = await openAt(temporaryDirectory(), { ...KEEP_ALL, quotaBytes: 7_000 }, dedup);
    onTestFinished(() => log.close());
    const event = (id: string, bytes: number) => ({ topic: 't', id, body: 'x'.repeat(bytes) });
    const append = (id: string, bytes: number) =>
      log.openWriter().append(checked(event(id, bytes)));
    await append('stored', 4_000);
    const one = log.openWriter();
    const outcomes = await Promise.allSettled([
      append('large', 8_000),
      append('small', 1_000),
      append('stored', 4_000),
      one.append(checked(event('first', 500))),
      one.append(checked(event('too much', 2_500))),
      one.append(checked(event('behind it', 1))),
      append('last', 500),
    ]);
    const areStored = outcomes.map(({ status }) => status === 'fulfilled');
    expect(areStored).toEqual([false, true, true, true, false, false, true]);
    expect(outcomes[0]).toMatchObject({ reason: { reason: 'storage-full' } });
    expect(outcomes[2]).toMatchObject({ value: { duplicates: 1 } });
    expect(await held(log, 't')).toEqual(['stored', 'small', 'first', 'last']);
    // The ids of refused events are not remembered as stored.
    await expect(append('large', 8_000)).rejects.toMatchObject({ reason: 'storage-full' });
    expect((await append('behind it', 1)).duplicates).toBe(0);
  });

  it('removes events by age also where the limit of a topic has emptied older commits', async () => {
    const { log, append } = await open({ maxAge: 1_000, topicMaxBytes: 3_000 });
    // The topic's limit removes the old events of 'big' long before they are too old, so that whole commits are empty.
    for (let i = 0; i < 20; i++) await append('big', String(i), 1000);
    now += 990;
    await append('big', 'a', 4000);
    const { last } = await append('big', 'b');
    now += 30;
    await append('other', 'c');
    now += 1_100;
    await append('another', 'd');
    await append('another', 'e');
    expect(await log.floor('big')).toBe(last.position);
    expect(await held(log, 'other')).toEqual([]);
    expect(await held(log, 'another')).toEqual(['d', 'e']);
  });

  it('does not store a removed event again while its id is remembered', async () => {
    const dedup = { ids: 100, milliseconds: 60_000 };
    const limits = { ...KEEP_ALL, maxAge: 1_000 };
    const directory = temporaryDirectory();
    let log = await openAt(directory, limits, dedup);
    onTestFinished(() => log.close());
    const append = (topic: string, ...ids: string[]) =>
      log.openWriter().append(checked(...ids.map((id) => ({ topic, id }))));
    await append('t', 'a', 'b', 'c');
    await append('u', 'x');
    now += 1_100;
    await append('t', 'd');
    expect(await held(log, 't')).toEqual(['d']);
    if (engine === 'lmdb') {
      await log.close();
      log = await openAt(directory, limits, dedup);
    }
    expect((await append('t', 'c', 'e', 'a', 'b')).duplicates).toBe(3);
    expect((await append('u', 'b', 'x')).duplicates).toBe(1);
    expect(await held(log, 't')).toEqual(['d', 'e']);
    now += 60_000;
    expect((await append('t', 'a')).duplicates).toBe(0);
  });

  it('keeps no ids of removed events beyond the window', async () => {
    const dedup = { ids: 100, milliseconds: 60_000 };
    const log = await openAt(temporaryDirectory(), { ...KEEP_ALL, maxAge: 1_000 }, dedup);
    onTestFinished(() => log.close());
    for (let i = 0; i < 300; i++) {
      await log.openWriter().append(checked({ topic: `t${i % 7}`, id: String(i) }));
      now += 500;
    }
    const { removedIds, store } = engineOf(log) as {
      removedIds?: { lists: ReadonlyMap<string, RunList<Run>>; all: RunList<Run> };
      store?: Record<'removedIds' | 'ids', { db: Counted }>;
    };
    const lengthOf = (list: RunList<Run>): number => [...list.upTo(Infinity)].length;
    const lengths = removedIds && [removedIds.all, ...removedIds.lists.values()].map(lengthOf);
    const [all, ...ofTopics] = lengths ?? [store!.removedIds.db.getKeysCount()];
    expect(all).toBeGreaterThan(50);
    expect(all).toBeLessThan(150);
    if (lengths) expect(ofTopics.reduce((sum, length) => sum + length, 0)).toBe(all);
    expect(store?.ids.db.getKeysCount() ?? 0).toBeLessThan(150);
  });

  it('refuses to read from before the removed events, or still reads them, and never skips them', async () => {
    const { log, append } = await open({ maxAge: 1_000 });
    const [first, second] = [await append('t', 'a'), await append('t', 'b')];
    now += 1_100;
    await append('t', 'c');
    await append('t', 'd');
    const floor = await log.floor('t');
    expect(floor).toBe(second.last.position);
    for (const before of [0, first.last.position - 1, floor - 1]) {
      // Removed events that are still in memory may be read if none is missing; else, the read must be refused.
      try {
        const batch = await log.read('t', before, 1);
        expect(eventsIn(batch!.bytes)[0].id).toBe(before < first.last.position ? 'a' : 'b');
      } catch (error) {
        expect(error).toBeInstanceOf(EventsRemovedError);
      }
    }
    expect(await log.read('t', floor, 1)).toBeDefined();
    expect(await log.read('t', floor + 1, 1)).toBeDefined();
  });

  if (engine === 'memory') return;

  it.each(['nothing else comes', 'other events come all the time'])(
    'applies a new limit to every topic, also to those that get no new events, while %s',
    async (situation) => {
      const before = await open({});
      const topics = Array.from({ length: 100 }, (_, i) => `quiet.${i}`);
      for (const topic of topics)
        for (let i = 0; i < 5; i++) await before.append(topic, String(i), 1000);
      await before.close();
      const { log, append } = await open({ topicMaxBytes: 2_500 }, before.directory);
      const isBusy = situation !== 'nothing else comes';
      const areRemoved = async (): Promise<boolean> => {
        if (isBusy) await append('busy', '', 1000);
        const floors = await Promise.all(topics.map((topic) => log.floor(topic)));
        return !floors.includes(0);
      };
      await until(areRemoved, 'the limit in every topic');
      for (const topic of topics) expect(await held(log, topic)).toEqual(['3', '4']);
    },
  );

  it('removes as much as comes in, whatever the sizes, and many runs of a topic at once', async () => {
    const maxBytes = 2_000_000;
    const { log, append } = await open({ maxBytes });
    const topics = Array.from({ length: 5 }, (_, i) => `t${i}`);
    const bytesHeld = async (): Promise<number> => {
      let bytes = 0;
      for (const topic of topics) {
        let position = await log.floor(topic);
        for (let batch; (batch = await log.read(topic, position, 1)); position = batch.last)
          bytes += batch.bytes.length;
      }
      return bytes;
    };
    let removals = 0;
    let floors = '';
    for (let i = 0; i < 2_400; i++) {
      // Small events come first, so that later each large one makes many small runs go.
      await append(topics[i % 5], String(i), i < 1_600 ? 1_000 : 20_000);
      const moved = (await Promise.all(topics.map((topic) => log.floor(topic)))).join();
      if (moved !== floors) removals++;
      floors = moved;
      if (i % 200 === 199) expect(await bytesHeld()).toBeLessThan(1.05 * maxBytes);
    }
    expect(await bytesHeld()).toBeGreaterThan(0.95 * maxBytes);
    expect(removals).toBeLessThan(500);
  });

  it('keeps the note and the ids of a commit no longer than its events, whichever limit removes these', async () => {
    const limits = { ...KEEP_ALL, topicMaxBytes: 10_000, maxBytes: 1e9 };
    const dedup = { ids: 50, milliseconds: 1_000 };
    for (const [retention, hasIds] of [
      [limits, true],
      [limits, false],
      [{ ...limits, maxBytes: 0 }, true],
    ] as const) {
      const log = await openAt(temporaryDirectory(), retention, dedup);
      onTestFinished(() => log.close());
      const append = (topic: string, id: string) =>
        log.openWriter().append(checked({ topic, id, body: 'x'.repeat(1_000) }));
      // The oldest commit stays, and must not keep the notes of later ones.
      await append('small', 'a');
      for (let i = 0; i < 1_000; i++) {
        await append('big', hasIds ? String(i) : '');
        now += 10;
      }
      const { store } = engineOf(log) as { store: Record<'commits' | 'ids', { db: Counted }> };
      expect(await held(log, 'small')).toEqual(['a']);
      expect((await held(log, 'big')).length).toBeLessThan(12);
      expect(store.commits.db.getKeysCount()).toBeLessThan(100);
      expect(store.ids.db.getKeysCount()).toBeLessThan(300);
    }
  });

  it('removes thousands of runs within seconds although no new events come', async () => {
    const { log, append } = await open({ maxAge: 1_000 });
    const topics = Array.from({ length: 2_000 }, (_, i) => ({ topic: `t${i}`, id: '' }));
    for (let i = 0; i < 3; i++) await log.openWriter().append(checked(...topics));
    const { last } = await append('last', 'a');
    now += 1_100;
    await eventually(async () => expect(await log.floor('last')).toBe(last.position));
    expect(await held(log, 't0')).toEqual([]);
    expect(await held(log, 't1999')).toEqual([]);
  });

  it('makes large events wait until many small ones have made room for them', async () => {
    const maxBytes = 16 * 2 ** 20;
    const { log } = await open({ maxBytes });
    // Each event becomes a run of its own, because it is alone in its topic.
    const small = Array.from({ length: 5_000 }, (_, i) => ({
      topic: `t${i}`,
      id: '',
      body: 'x'.repeat(2_800),
    }));
    for (let i = 0; i < small.length; i += 1_000)
      await log.openWriter().append(checked(...small.slice(i, i + 1_000)));
    const large = { topic: 'large', body: 'x'.repeat(2 ** 19) };
    const sizes = engineOf(log) as { heldBytes: number };
    expect(sizes.heldBytes).toBeGreaterThan(0.8 * maxBytes);
    for (let i = 0; i < 40; i++) {
      const four = Array.from({ length: 4 }, () => ({ ...large, id: '' }));
      await log.openWriter().append(checked(...four));
      // The limit with its slack of 1/64, the largest backlog of removals, and the append itself.
      const most = maxBytes * (1 + 1 / 64) + 4 * 2 ** 20 + 4 * 2 ** 20;
      expect(sizes.heldBytes).toBeLessThan(most);
    }
  });

  it('removes topics again and again, with limits or without, and keeps no record of their commits for long', async () => {
    for (const limits of [{}, { maxAge: 1e9 }, { topicMaxBytes: 1e6 }]) {
      const { log, append } = await open(limits);
      const { commits } = engineOf(log) as Engine;
      for (let round = 0; round < 6; round++) {
        for (let commit = 0; commit < 100; commit++) {
          const topics = Array.from({ length: 12 }, (_, i) => `t${i % 2}`);
          await Promise.all(topics.map((topic, i) => append(topic, `${round} ${commit} ${i}`)));
        }
        await log.removeTopic('t0');
        await log.removeTopic('t1');
        expect(await held(log, 't0')).toEqual([]);
        expect(await held(log, 't1')).toEqual([]);
        // The records of one round are forgotten while the next one's runs are removed.
        expect([...commits.after(undefined)].length).toBeLessThanOrEqual(200);
      }
      await append('t0', 'new');
      expect(await held(log, 't0')).toEqual(['new']);
    }
  });

  it('makes no commits for a topic whose newest events alone are over its limit', async () => {
    const { log, append } = await open({ topicMaxBytes: 1_000 });
    await append('t', 'old', 2_000);
    await append('t', 'new', 2_000);
    const commit = vi.spyOn(engineOf(log) as Engine, 'commit');
    await sleep(3_500); // some sweeps of a log to which nothing comes
    expect(await held(log, 't')).toEqual(['new']);
    expect(commit.mock.calls.length).toBeLessThan(5);
  });

  it('keeps its floors and sizes across a restart', async () => {
    const before = await open({ maxBytes: 20_000 });
    for (let i = 0; i < 40; i++) await before.append('t', String(i), 1000);
    const floor = await before.log.floor('t');
    const ids = await held(before.log, 't');
    await before.close();
    const after = await open({ maxBytes: 20_000 }, before.directory);
    expect(await after.log.floor('t')).toBe(floor);
    expect(await held(after.log, 't')).toEqual(ids);
    expect(() => after.log.read('t', floor - 1, 1)).toThrow(EventsRemovedError);
    for (let i = 40; i < 60; i++) await after.append('t', String(i), 1000);
    const later = await held(after.log, 't');
    expect(later.length).toBeGreaterThanOrEqual(17);
    expect(later.length).toBeLessThanOrEqual(20);
    expect(later.at(-1)).toBe('59');
  });

  it('leaves exactly the events after the floor of each topic, whatever is stored and removed when', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            topic: fc.constantFrom('a', 'b', 'c'),
            bytes: fc.nat(3000),
            wait: fc.nat(400),
          }),
          {
            minLength: 20,
            maxLength: 60,
          },
        ),
        fc.constantFrom<Partial<RetentionLimits>>(
          { maxAge: 2_000 },
          { maxBytes: 15_000 },
          { topicMaxBytes: 6_000 },
          { maxAge: 3_000, maxBytes: 20_000, topicMaxBytes: 8_000 },
        ),
        async (steps, limits) => {
          const { log, append, close } = await open(limits);
          const stored: Record<string, { id: string; position: number }[]> = {
            a: [],
            b: [],
            c: [],
          };
          for (const [i, { topic, bytes, wait }] of steps.entries()) {
            const { last } = await append(topic, String(i), bytes);
            stored[topic].push({ id: String(i), position: last.position });
            now += wait;
            let holding = 0;
            for (const [name, events] of Object.entries(stored)) {
              const floor = await log.floor(name);
              const expected = events
                .filter(({ position }) => position > floor)
                .map(({ id }) => id);
              expect(await held(log, name)).toEqual(expected);
              if (expected.length > 0) holding++;
              expect(floor === 0 || events.some(({ position }) => position === floor)).toBe(true);
            }
            expect((log as EventLog).topicCount).toBe(holding);
          }
          await close();
        },
      ),
      { numRuns: 12 },
    ));
});
