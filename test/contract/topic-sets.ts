import * as fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { type EventRepository, EventsRemovedError } from '../../src/repository/event-repository.js';
import type { TopicReader } from '../../src/repository/topic-reader.js';
import { parseCursor, type Position } from '../../src/wire/cursor.js';
import { TopicSet } from '../../src/wire/topic-set.js';
import { checked, eventsIn } from '../wire/events.js';
import { ids } from './reading.js';
import { temporaryDirectory } from './temporary.js';

const TOPICS = ['orders', 'orders.created', 'orders.eu.created', 'orders.eu.paid', 'x', 'x.y'];
const SETS: readonly (readonly [members: readonly string[], topics: readonly string[]])[] = [
  [['>'], TOPICS],
  [['orders.>'], ['orders.created', 'orders.eu.created', 'orders.eu.paid']],
  [
    ['orders.*.created', 'x'],
    ['orders.eu.created', 'x'],
  ],
  [
    ['*.created', 'orders.>'],
    ['orders.created', 'orders.eu.created', 'orders.eu.paid'],
  ],
  [['*'], ['orders', 'x']],
  [
    ['x', 'orders'],
    ['x', 'orders'],
  ],
  [['nothing.>', 'order'], []],
];

interface Seen {
  readonly id: string;
  readonly topic: string;
  readonly position: Position;
}

/** Reads what a reader has now, as a watch does, and throws if it breaks what holds for every batch. */
async function readOn(
  log: EventRepository,
  reader: TopicReader,
  after: Position,
  maxBytes = 64 * 1024,
): Promise<Seen[]> {
  const seen: Seen[] = [];
  let at = after;
  while (at < log.head) {
    const batch = await reader.read(at, maxBytes);
    if (!batch) return seen;
    expect(batch.last).toBeGreaterThan(at);
    expect(batch.last).toBeLessThanOrEqual(log.head);
    const events = eventsIn(batch.bytes).map(({ id, topic, cursor }) => {
      const { position } = parseCursor(cursor)!;
      expect(position).toBeGreaterThan(at);
      at = position;
      return { id, topic, position };
    });
    expect(events).toHaveLength(batch.count);
    if (events.length > 0) expect(batch.last).toBe(at);
    at = batch.last;
    seen.push(...events);
  }
  return seen;
}

const sizes = fc.oneof(
  { weight: 8, arbitrary: fc.nat(200) },
  { weight: 1, arbitrary: fc.integer({ min: 20_000, max: 40_000 }) },
);
const commits = fc.array(
  fc.array(fc.tuple(fc.constantFrom(...TOPICS), sizes), { minLength: 1, maxLength: 8 }),
  { minLength: 1, maxLength: 12 },
);

/** Declares the tests of what EventRepository promises of readers of several topics, for one engine. */
export function topicSetContract(
  name: string,
  open: (place: string) => EventRepository | Promise<EventRepository>,
  reopens: boolean,
): void {
  describe(`${name} reads several topics in the order of the log`, () => {
    const endings: (() => Promise<void> | void)[] = [];
    const endAll = async (but = 0): Promise<void> => {
      for (const end of endings.splice(but).toReversed()) await end();
    };
    afterEach(() => endAll());

    async function openAt(place: string): Promise<EventRepository> {
      const log = await open(place);
      endings.push(() => log.close());
      return log;
    }
    function newPlace(): string {
      const { path, remove } = temporaryDirectory();
      endings.push(remove);
      return path;
    }
    const openNew = () => openAt(newPlace());

    const opened = (
      log: EventRepository,
      members: readonly string[],
      mayLackUpTo = 0,
    ): TopicReader => {
      const reader = log.readerOf(new TopicSet(members));
      reader.open(mayLackUpTo);
      endings.push(() => reader.close());
      return reader;
    };
    const append = (log: EventRepository, ...events: readonly (readonly [string, string])[]) =>
      log.openWriter().append(checked(...events.map(([topic, id]) => ({ topic, id }))));

    let sent = 0;
    async function write(
      log: EventRepository,
      plan: readonly (readonly (readonly [string, number])[])[],
    ): Promise<void> {
      const writer = log.openWriter();
      for (const events of plan)
        await writer.append(
          checked(
            ...events.map(([topic, size]) => ({
              topic,
              id: String(sent++),
              body: 'b'.repeat(size),
            })),
          ),
        );
    }

    /** All events of the log, as readers of `>` have them from the beginning. */
    const all = (log: EventRepository): Promise<Seen[]> => readOn(log, opened(log, ['>']), 0);

    async function checkSets(
      log: EventRepository,
      readers: ReadonlyMap<readonly string[], TopicReader>,
      followed: ReadonlyMap<readonly string[], readonly Seen[]>,
    ): Promise<void> {
      const everything = await all(log);
      for (const [members, topics] of SETS) {
        const expected = everything.filter(({ topic }) => topics.includes(topic));
        expect(followed.get(members) ?? expected).toEqual(expected);
        const fresh = opened(log, members);
        const tops = [0, ...everything.map(({ position }) => position)];
        for (const after of tops.filter((_, i) => i % 3 === 0)) {
          const rest = expected.filter(({ position }) => position > after);
          for (const maxBytes of [1, 30_000])
            expect(await readOn(log, fresh, after, maxBytes)).toEqual(rest);
          const live = readers.get(members);
          if (live) expect(await readOn(log, live, after)).toEqual(rest);
          const count = await fresh.countAfter(after);
          if (count !== undefined) expect(count).toBe(rest.length);
        }
        for (const count of [1, 2, 5, 1_000]) {
          const position = await fresh.positionBeforeLast(count, log.head);
          expect(await readOn(log, fresh, position)).toEqual(expected.slice(-count));
        }
        expect(await fresh.floor()).toBe(0);
      }
    }

    it('each event once, whatever is in memory, from every position and across an opening', async () => {
      await fc.assert(
        fc.asyncProperty(commits, commits, async (before, after) => {
          await endAll();
          const place = newPlace();
          let log = await openAt(place);
          await write(log, before);
          // These follow from now on, so what is written later comes from memory.
          const readers = new Map(SETS.map(([members]) => [members, opened(log, members)]));
          const followed = new Map<readonly string[], Seen[]>();
          const readAll = async (): Promise<void> => {
            for (const [members, reader] of readers) {
              const seen = followed.get(members) ?? [];
              seen.push(...(await readOn(log, reader, seen.at(-1)?.position ?? 0)));
              followed.set(members, seen);
            }
          };
          await readAll();
          for (const commit of after) {
            await write(log, [commit]);
            await readAll();
          }
          await checkSets(log, readers, followed);
          if (!reopens) return;
          const seen = await all(log);
          await endAll(1); // all but the directory
          log = await openAt(place);
          expect(await all(log)).toEqual(seen);
          await checkSets(log, new Map(), new Map());
        }),
        { numRuns: 8 },
      );
    }, 600_000);

    it('since a time, of all topics together', async () => {
      const log = await openNew();
      await append(log, ['orders', 'a'], ['x', 'b']);
      const { last } = await append(log, ['orders.created', 'c']);
      const reader = opened(log, ['orders', 'orders.>']);
      const before = await reader.positionBefore(0);
      expect(ids(await readOn(log, reader, before!))).toEqual(['a', 'c']);
      expect(await reader.positionBefore(Date.now() + 60_000)).toBeUndefined();
      expect(last.position).toBe(log.head);
    });

    it('a removal ends a reader that follows the log, though the events are still in memory', async () => {
      const log = await openNew();
      const { last: a } = await append(log, ['x', '1']);
      const reader = opened(log, ['orders', 'x']);
      const { last: b } = await append(log, ['orders', '2']);
      await append(log, ['x', '3']);
      await log.removeTopic('orders');
      await expect(async () => readOn(log, reader, a.position)).rejects.toThrow(EventsRemovedError);
      expect(ids(await readOn(log, reader, b.position))).toEqual(['3']);
    });

    it('a removal of any of its topics ends it where it has not read that, and nowhere else', async () => {
      const log = await openNew();
      const { last: a } = await append(log, ['orders.a', '1']);
      const { last: b } = await append(log, ['orders.b', '2']);
      const { last: c } = await append(log, ['x', '3']);
      const { last: d } = await append(log, ['orders.a', '4']);
      const early = opened(log, ['orders.*']);
      const others = opened(log, ['x', 'orders.a']);
      expect(await early.floor()).toBe(0);
      await log.removeTopic('orders.b');
      await append(log, ['orders.b', '5']);
      // Then the log also forgets that there was a commit of it.
      for (let i = 0; i < 5; i++) {
        await append(log, [`y.${i}`, '']);
        await log.removeTopic(`y.${i}`);
      }

      expect(await early.floor()).toBeGreaterThanOrEqual(b.position);
      for (const reader of [early, opened(log, ['orders.*']), opened(log, ['orders.b', 'x'])]) {
        for (const after of [0, a.position])
          await expect(async () => readOn(log, reader, after)).rejects.toThrow(EventsRemovedError);
      }
      expect(ids(await readOn(log, early, c.position))).toEqual(['4', '5']);
      expect(ids(await readOn(log, others, 0))).toEqual(['1', '3', '4']);

      // What was removed before a start may be missing, and what is removed later may not.
      const floor = await early.floor();
      const lenient = opened(log, ['orders.*'], floor);
      expect(ids(await readOn(log, lenient, 0))).toEqual(['1', '4', '5']);
      await log.removeTopic('orders.a');
      await expect(async () => readOn(log, lenient, 0)).rejects.toThrow(EventsRemovedError);
      expect(ids(await readOn(log, lenient, d.position))).toEqual(['5']);
    });

    it('a rare topic in a long log is found, a part of the log at a time', async () => {
      const log = await openNew();
      await append(log, ['rare', 'first']);
      const writer = log.openWriter();
      for (let i = 0; i < 60; i++)
        await writer.append(
          checked(...Array.from({ length: 50 }, (_, n) => ({ topic: `many.${n}`, id: '' }))),
        );
      await append(log, ['rare', 'last']);
      const reader = opened(log, ['rare', 'none']);
      expect(ids(await readOn(log, reader, 0))).toEqual(['first', 'last']);
      expect(ids(await readOn(log, opened(log, ['many.49']), 0))).toHaveLength(60);
      const before = await reader.positionBeforeLast(2, log.head);
      expect(ids(await readOn(log, reader, before))).toEqual(['first', 'last']);
    });
  });
}
