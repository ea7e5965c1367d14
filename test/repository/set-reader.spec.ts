import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it, vi } from 'vitest';
import type { EngineCommit } from '../../src/repository/engine.js';
import { EventLog } from '../../src/repository/event-log.js';
import { EventsRemovedError } from '../../src/repository/event-repository.js';
import { MemoryEngine } from '../../src/repository/memory/memory-engine.js';
import { TopicSet } from '../../src/wire/topic-set.js';
import { upToThrice } from '../support/wait.js';
import { checked } from '../wire/events.js';

it('a reader far behind reads each run of a commit about once, and none of other topics', async () => {
  const engine = new MemoryEngine();
  const log = new EventLog(engine);
  const body = 'x'.repeat(10_000);
  const topics = Array.from({ length: 60 }, (_, i) => `${i % 2 === 0 ? 'own' : 'other'}.${i}`);
  await log.openWriter().append(checked(...topics.map((topic) => ({ topic, id: '', body }))));
  const at = vi.spyOn(engine.runs, 'at');
  const reader = log.readerOf(new TopicSet(['own.*']));
  reader.open(0);
  let events = 0;
  for (let after = 0; after < log.head;) {
    const batch = await reader.read(after, 25_000);
    if (!batch) break;
    events += batch.count;
    after = batch.last;
  }
  expect(events).toBe(30);
  expect(at.mock.calls.every(([topic]) => topic.startsWith('own.'))).toBe(true);
  // Each batch of two runs looks at a third one, which does not fit, and may look at the one before once more.
  expect(at.mock.calls.length).toBeLessThanOrEqual(15 * 4);
  reader.close();
  await log.close();
});

it('a removal that failed ends no reader that is behind', async () => {
  class FailingEngine extends MemoryEngine {
    failing = false;
    override commit(commit: EngineCommit): Promise<void> {
      return this.failing ? Promise.reject(new Error('no')) : super.commit(commit);
    }
  }
  const engine = new FailingEngine();
  const log = new EventLog(engine);
  await log.openWriter().append(checked({ topic: 'a', id: '1' }, { topic: 'b', id: '2' }));
  const reader = log.readerOf(new TopicSet(['a', 'b']));
  reader.open(0);
  engine.failing = true;
  await expect(log.removeTopic('a')).rejects.toThrow('no');
  expect((await reader.read(0, 1_000))?.count).toBe(2);
  engine.failing = false;
  await log.removeTopic('a');
  await expect(async () => reader.read(0, 1_000)).rejects.toThrow(EventsRemovedError);
  reader.close();
  await log.close();
});

it('a search for the newest events ends soon after nobody waits for it any more', async () => {
  const log = new EventLog(new MemoryEngine());
  const writer = log.openWriter();
  for (let i = 0; i < 4; i++)
    await writer.append(
      checked(...Array.from({ length: 600 }, (_, n) => ({ topic: `other.${n}`, id: '' }))),
    );
  const gone = new AbortController();
  const search = log
    .readerOf(new TopicSet(['none.>']))
    .positionBeforeLast(5, log.head, gone.signal);
  gone.abort(new Error('gone'));
  await expect(search).rejects.toThrow('gone');
  await log.close();
});

it('a read of many patterns looks at few topics before other work has its turn', async () => {
  const log = new EventLog(new MemoryEngine());
  const topics = Array.from({ length: 200 }, (_, i) => ({ topic: `other.${i}`, id: '' }));
  await log.openWriter().append(checked(...topics));
  const set = new TopicSet(Array.from({ length: 1_000 }, (_, i) => `${i}.*`));
  const has = vi.spyOn(set, 'has');
  const reader = log.readerOf(set);
  reader.open(0);
  await reader.floor();
  has.mockClear();
  const batch = await reader.read(0, 1_000);
  expect({ count: batch?.count, looks: has.mock.calls.length }).toEqual({ count: 0, looks: 62 });
  reader.close();
  await log.close();
});

it('a search begins with few looks, because many may begin in one turn', async () => {
  const log = new EventLog(new MemoryEngine());
  const topics = Array.from({ length: 200 }, (_, i) => ({ topic: `other.${i}`, id: '' }));
  await log.openWriter().append(checked(...topics));
  const set = new TopicSet(['none.*']);
  const has = vi.spyOn(set, 'has');
  const reader = log.readerOf(set);
  reader.open(0);
  await reader.floor();
  const looks = async (search: () => unknown): Promise<number> => {
    has.mockClear();
    const searching = search();
    const { length } = has.mock.calls;
    await searching;
    return length;
  };
  expect(await looks(() => reader.read(0, 1_000))).toBe(64);
  expect(await looks(() => reader.read(64, 1_000))).toBe(136);
  reader.close();
  await log.close();
});

it('1,000 long patterns hold the process for no longer than other patterns do', async () => {
  const log = new EventLog(new MemoryEngine());
  await log.openWriter().append(checked({ topic: 'b', id: '' }));
  const start = 'a'.repeat(180);
  const members = Array.from({ length: 500 }, (_, i) => [`${start}${i}.*`, `${start}${i}`]).flat();
  /** Opens ten readers one after the other, and returns how long that took in all. */
  const milliseconds = async (): Promise<number> => {
    const begun = performance.now();
    for (let i = 0; i < 10; i++) {
      const reader = log.readerOf(new TopicSet(members));
      reader.open(0);
      await reader.floor();
      await reader.countAfter(0);
      reader.close();
    }
    return performance.now() - begun;
  };
  // It is some 50 ms, and was 10 s. This process may stand still.
  expect(await upToThrice(milliseconds, (taken) => taken < 2_000)).toBeLessThan(2_000);
  await log.close();
});

it('counts each topic once, however its patterns and names overlap', async () => {
  const log = new EventLog(new MemoryEngine());
  const names = ['a', 'a.b', 'a.b.c', 'a.bc', 'ab', 'a-b.c', 'b.c'];
  await log.openWriter().append(checked(...names.map((topic) => ({ topic, id: topic }))));
  const counted = (...members: string[]): Promise<number | undefined> =>
    log.readerOf(new TopicSet(members)).countAfter(0);
  expect(await counted('a.*', 'a.b', 'a', 'a.b.>', 'ab')).toBe(5);
  expect(await counted('*.*', 'a.*', 'a.b', 'a.b.*', 'b.c', 'b', 'ab')).toBe(6);
  expect(await counted('a.b.*', 'a.b', 'a-b.*', 'a.*.*')).toBe(3);
  await log.close();
});

describe('of many different sets that have the same topics', () => {
  const SETS = 1_000;
  const TOPICS = 200;

  /** Follows the sets, and returns the log with them, and a writer's append of an event of each topic. */
  function followed(log: EventLog) {
    const readers = Array.from({ length: SETS }, (_, i) =>
      log.readerOf(new TopicSet(['t.>', `own.${i}`])),
    );
    for (const reader of readers) reader.open(0);
    const topics = Array.from({ length: TOPICS }, (_, i) => `t.${i}`);
    const append = () =>
      log.openWriter().append(checked(...topics.map((topic) => ({ topic, id: '' }))));
    return { readers, topics, append };
  }

  it('a commit is shown in several turns, and each reader gets all of it', async () => {
    const log = new EventLog(new MemoryEngine());
    const { readers, append } = followed(log);
    const heads = new Set<number>();
    log.onDurable(() => void heads.add(log.head));
    const late = log.readerOf(new TopicSet(['t.>', 'late']));
    let lateSince = 0;
    const state = { isStored: false };
    const stored = append().then(() => (state.isStored = true));
    while (!state.isStored) {
      await nextTurn();
      if (lateSince > 0 || log.head === 0) continue;
      lateSince = log.head;
      late.open(0);
    }
    await stored;
    expect(log.head).toBe(TOPICS);
    // Each run is on 1,000 lists, and 16,384 lists are changed in a turn.
    expect(heads.size).toBe(Math.ceil(TOPICS / 17));
    expect(lateSince).toBeLessThan(TOPICS);
    expect((await late.read(lateSince, 1_000_000))?.count).toBe(TOPICS - lateSince);
    for (const reader of [readers[0], readers.at(-1)!])
      expect((await reader.read(0, 1_000_000))?.count).toBe(TOPICS);
    await log.close();
  });

  it('a removal is noted in several turns, and no reader passes by what is missing', async () => {
    const log = new EventLog(new MemoryEngine());
    const { readers, append, topics } = followed(log);
    await append();
    let turns = 0;
    const state = { isRemoved: false };
    const removed = Promise.all(topics.map((topic) => log.removeTopic(topic)));
    void removed.then(() => (state.isRemoved = true));
    for (; !state.isRemoved; turns++) await nextTurn();
    expect(turns).toBeGreaterThanOrEqual(Math.ceil(TOPICS / 17));
    for (const reader of [readers[0], readers.at(-1)!])
      await expect(async () => reader.read(0, 1_000)).rejects.toThrow(EventsRemovedError);
    await log.close();
  });
});
