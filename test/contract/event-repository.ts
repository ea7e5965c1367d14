import * as fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  AppendError,
  type Appended,
  type EventRepository,
  EventsRemovedError,
  type EventWriter,
} from '../../src/repository/event-repository.js';
import { formatCursor, type Position } from '../../src/wire/cursor.js';
import { checked } from '../wire/events.js';
import { Bell, ids, next, readAll, type Seen } from './reading.js';
import { temporaryDirectory } from './temporary.js';
import { topicSetContract } from './topic-sets.js';

export interface Capabilities {
  /** True when a log that is closed and opened again at the same place still has its events. */
  readonly reopens: boolean;
  /** Makes every write fail until the function that it returns is called. */
  readonly failWrites?: () => () => void;
}

/** Opens the log that is kept at a place: a directory, for engines that have one. */
export type Open = (place: string) => EventRepository | Promise<EventRepository>;

const TOPICS = ['orders', 'orders.created', 'x'];
/** A topic without events, whose name is the beginning of other topics' names. */
const EMPTY_TOPIC = 'order';

interface Sent {
  readonly topic: string;
  readonly id: string;
  readonly writer: number;
}

interface Step {
  readonly writer: number;
  /** The topic and the body's size (bytes) of each event. */
  readonly events: readonly (readonly [topic: string, size: number])[];
  /** True: wait until all events so far are stored. */
  readonly settle: boolean;
}

const sizes = fc.oneof(
  { weight: 12, arbitrary: fc.nat(200) },
  { weight: 3, arbitrary: fc.nat(5_000) },
  { weight: 1, arbitrary: fc.integer({ min: 30_000, max: 70_000 }) },
);
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    writer: fc.nat(2),
    events: fc.array(fc.tuple(fc.constantFrom(...TOPICS), sizes), { minLength: 1, maxLength: 6 }),
    settle: fc.boolean(),
  }),
  { minLength: 1, maxLength: 15 },
);

/** Declares the tests of the promises that EventRepository makes, for one engine. */
export function eventRepositoryContract(
  name: string,
  open: Open,
  capabilities: Capabilities,
): void {
  topicSetContract(name, open, capabilities.reopens);

  describe(`${name} keeps the promises of a log`, () => {
    const endings: (() => Promise<void> | void)[] = [];
    const opened = new Set<EventRepository>();

    async function openAt(place: string): Promise<EventRepository> {
      const repository = await open(place);
      opened.add(repository);
      return repository;
    }
    async function close(repository: EventRepository): Promise<void> {
      opened.delete(repository);
      await repository.close();
    }
    function newPlace(): string {
      const { path, remove } = temporaryDirectory();
      endings.push(remove);
      return path;
    }
    const openNew = () => openAt(newPlace());

    afterEach(async () => {
      vi.restoreAllMocks();
      for (const repository of opened) await close(repository);
      for (const end of endings.splice(0)) await end();
    });

    /** Runs a function on a new log, and removes the log after it. A property test opens many of them. */
    async function withLog<T>(
      run: (log: EventRepository, place: string) => Promise<T>,
    ): Promise<T> {
      const { path, remove } = temporaryDirectory();
      const repository = await openAt(path);
      try {
        return await run(repository, path);
      } finally {
        for (const log of opened) await close(log);
        remove();
      }
    }

    it('1. ordered, 3. complete: every interleaving of writers is read in order, once', () =>
      fc.assert(
        fc.asyncProperty(steps, readings(), (plan, plannedReads) =>
          withLog(async (log, place) => {
            const { sent, appended } = await write(log, plan);
            const before = await checkContents(log, sent, appended);
            await checkReads(log, before, plannedReads);
            if (!capabilities.reopens) return;

            await close(log);
            const again = await openAt(place);
            expect(again.head).toBe(log.head);
            expect(await contents(again)).toEqual(before);
            await checkReads(again, before, plannedReads);

            const more = await write(again, plan, 'again-');
            const after = await contents(again);
            for (const topic of TOPICS) {
              const [old, fresh] = [before.get(topic)!, after.get(topic)!];
              expect(fresh.slice(0, old.length)).toEqual(old);
              expect(fresh.length).toBe(
                old.length + more.sent.filter((event) => event.topic === topic).length,
              );
            }
            await checkReads(again, after, plannedReads);
          }),
        ),
        { numRuns: 20 },
      ));

    it('2. nothing is seen before it is durable, 3. and waiting readers see it at once then', async () => {
      const log = await openNew();
      const bell = new Bell(log);
      const perWriter = 200;
      const writers = ['orders', 'orders.created', 'orders'].map(async (topic, w) => {
        const writer = log.openWriter();
        const appends: Promise<unknown>[] = [];
        for (let i = 0; i < perWriter; i++) {
          appends.push(
            writer.append(checked({ topic, id: `${w}-${i}` })).then(({ last }) => {
              expect(log.head).toBeGreaterThanOrEqual(last.position);
            }),
          );
          await writer.room();
          if (i % 7 === w) await new Promise(setImmediate);
          if (i % 50 === w) await appends.at(-1);
        }
        await Promise.all(appends);
      });
      const readers = [
        ['orders', 2 * perWriter, 1],
        ['orders', 2 * perWriter, 100_000],
        ['orders.created', perWriter, 1_000],
      ] as const;
      const seen = await Promise.all(
        readers.map(([topic, until, maxBytes]) => follow(log, bell, topic, until, maxBytes)),
      );
      await Promise.all(writers);
      const inOrder = (w: number) => Array.from({ length: perWriter }, (_, i) => `${w}-${i}`);
      for (const events of seen.slice(0, 2)) {
        expect(ids(events).filter((id) => id.startsWith('0-'))).toEqual(inOrder(0));
        expect(ids(events).filter((id) => id.startsWith('2-'))).toEqual(inOrder(2));
      }
      expect(ids(seen[2])).toEqual(inOrder(1));
      expect(seen[0]).toEqual(seen[1]);
    });

    it('2. readers are told of a commit when its events can be read, and of each of its topics', async () => {
      const log = await openNew();
      const told: [string, number][] = [];
      const reads: Promise<Seen[] | undefined>[] = [];
      log.onDurable((topics) => {
        for (const topic of topics) {
          told.push([topic, log.head]);
          reads.push(next(log, topic, 0, 1_000_000));
        }
      });
      const writer = log.openWriter();
      const { last } = await writer.append(checked({ topic: 'a' }, { topic: 'b' }));
      expect(told.map(([topic]) => topic).toSorted()).toEqual(['a', 'b']);
      expect(told.every(([, head]) => head === last.position)).toBe(true);
      for (const events of await Promise.all(reads)) expect(events).toHaveLength(1);
    });

    it('4. a position is never used again', async () => {
      const place = newPlace();
      let log = await openAt(place);
      const positions: Position[] = [];
      for (let round = 0; round < 4; round++) {
        const writer = log.openWriter();
        for (let i = 0; i < 5; i++) {
          const { last } = await writer.append(checked({ topic: 't' }, { topic: 'u' }));
          positions.push(last.position);
        }
        if (capabilities.failWrites) {
          const heal = capabilities.failWrites();
          await expect(log.openWriter().append(checked({ topic: 't' }))).rejects.toThrow(
            AppendError,
          );
          heal();
        }
        if (!capabilities.reopens) continue;
        await close(log);
        log = await openAt(place);
        expect(log.head).toBeGreaterThanOrEqual(positions.at(-1)!);
      }
      expect(positions).toEqual([...new Set(positions)].toSorted((a, b) => a - b));
      const stored = [...(await readAll(log, 't')), ...(await readAll(log, 'u'))];
      expect(new Set(stored.map(({ position }) => position)).size).toBe(stored.length);
      expect(stored).toHaveLength(40);
    });

    it('4. the epoch of stored events stays for as long as the log does', async () => {
      const place = newPlace();
      const log = await openAt(place);
      const { last } = await log.openWriter().append(checked({ topic: 't' }));
      expect(log.cursorAt(log.head)).toEqual(last);
      expect(log.cursorAt(0).epoch).toBe(last.epoch);
      await close(log);
      const again = await openAt(place);
      expect(again.cursorAt(again.head).epoch === last.epoch).toBe(capabilities.reopens);
      expect(again.head > 0).toBe(capabilities.reopens);
    });

    if (capabilities.failWrites) {
      const failWrites = capabilities.failWrites;
      it('5. a prefix: after a failed append of a writer, none of its later ones is stored', async () => {
        const log = await openNew();
        const [failing, waiting, late] = [log.openWriter(), log.openWriter(), log.openWriter()];
        await failing.append(checked({ topic: 't', id: 'before' }));
        const head = log.head;

        const heal = failWrites();
        const outcome = async (id: string) =>
          failing.append(checked({ topic: 't', id })).then(() => 'stored', errorOf);
        const failed = outcome('failed');
        await new Promise(setImmediate); // by now, its commit is under way or over
        const later = outcome('later');
        expect(await failed).toBeInstanceOf(AppendError);
        expect(await later).toBeInstanceOf(AppendError);
        await expect(waiting.append(checked({ topic: 't', id: 'other' }))).rejects.toThrow(
          AppendError,
        );
        expect(log.head).toBe(head);
        expect(ids(await readAll(log, 't'))).toEqual(['before']);

        heal();
        await expect(failing.append(checked({ topic: 't', id: 'too late' }))).rejects.toThrow(
          AppendError,
        );
        await late.append(checked({ topic: 't', id: 'another writer' }));
        expect(ids(await readAll(log, 't'))).toEqual(['before', 'another writer']);
      });
    }

    it('a log that never held an event has head 0, a cursor for it, and nothing to read', async () => {
      const log = await openNew();
      expect(log.head).toBe(0);
      expect(log.cursorAt(0)).toEqual({ epoch: expect.any(String), position: 0 });
      expect(log.locate(log.cursorAt(0))).toBe('in-log');
      expect(await log.read(EMPTY_TOPIC, 0, 1_000)).toBeUndefined();
      expect(await log.floor(EMPTY_TOPIC)).toBe(0);
      expect(await log.positionBefore(EMPTY_TOPIC, 0)).toBeUndefined();
      expect(await log.positionBeforeLast(EMPTY_TOPIC, 1, log.head)).toBe(0);
    });

    it('locate() tells whether a cursor is in the log, ahead of it, or of another epoch', async () => {
      const log = await openNew();
      const writer = log.openWriter();
      for (let i = 0; i < 3; i++) await writer.append(checked({ topic: 't' }, { topic: 'u' }));
      const { epoch } = log.cursorAt(log.head);
      const events = [...(await readAll(log, 't')), ...(await readAll(log, 'u'))];
      for (const position of [0, ...events.map((event) => event.position), log.head]) {
        expect(log.locate(log.cursorAt(position))).toBe('in-log');
      }
      expect(log.locate({ epoch, position: log.head + 1 })).toBe('ahead');
      expect(log.locate({ epoch, position: 2 ** 48 - 1 })).toBe('ahead');

      const other = await openNew();
      expect(other.locate(log.cursorAt(0))).toBe('other-epoch');
      expect(other.locate(log.cursorAt(log.head))).toBe('other-epoch');
      expect(log.locate(other.cursorAt(0))).toBe('other-epoch');
    });

    it('read() returns at most maxBytes bytes, but at least one event', async () => {
      const log = await openNew();
      const writer = log.openWriter();
      for (let i = 0; i < 20; i++)
        await writer.append(checked({ topic: 't', body: 'x'.repeat(900) }));
      for (const maxBytes of [1_000_000, 1, 5_000, 2_500]) {
        const batch = await log.read('t', 0, maxBytes);
        expect(batch!.count).toBeGreaterThan(0);
        expect(batch!.count === 1 || batch!.bytes.length <= maxBytes).toBe(true);
      }
      expect((await readAll(log, 't', 0, 1)).length).toBe(20);
    });

    it('positionBefore() finds the events stored at or after a time, even where the clock was set back', () =>
      fc.assert(
        fc.asyncProperty(timedSteps(), (plan) =>
          withLog(async (log, place) => {
            const start = Date.now();
            let now = start;
            let storedAt = 0;
            const clock = vi.spyOn(Date, 'now').mockImplementation(() => now);
            const times = new Map<string, number>();
            const writer = log.openWriter();
            for (const [i, { advance, topics }] of plan.entries()) {
              now += advance;
              storedAt = Math.max(storedAt, now);
              for (const [n] of topics.entries()) times.set(`${i}-${n}`, storedAt);
              await writer.append(
                checked(...topics.map((topic, n) => ({ topic, id: `${i}-${n}`, at: null }))),
              );
            }
            clock.mockRestore();
            const instants = new Set([0, storedAt + 1, ...times.values()]);
            for (const time of times.values()) instants.add(time - 1).add(time + 1);

            const check = async (repository: EventRepository) => {
              for (const topic of [...TOPICS, EMPTY_TOPIC]) {
                const all = await readAll(repository, topic);
                for (const time of instants) {
                  const expected = all.filter(({ id }) => times.get(id)! >= time);
                  const position = await repository.positionBefore(topic, time);
                  const found =
                    position === undefined ? [] : await readAll(repository, topic, position);
                  expect([position === undefined, ids(found)]).toEqual([
                    expected.length === 0,
                    ids(expected),
                  ]);
                }
              }
            };
            await check(log);
            if (!capabilities.reopens) return;
            await close(log);
            await check(await openAt(place));
          }),
        ),
        { numRuns: 12 },
      ));

    it('positionBeforeLast() finds the newest n events, for every n', () =>
      fc.assert(
        fc.asyncProperty(steps, (plan) =>
          withLog(async (log, place) => {
            await write(log, plan);
            const check = async (repository: EventRepository) => {
              for (const topic of [...TOPICS, EMPTY_TOPIC]) {
                const all = ids(await readAll(repository, topic));
                for (const count of [...Array(all.length + 2).keys(), 2 ** 32 - 2]) {
                  const position = await repository.positionBeforeLast(
                    topic,
                    count + 1,
                    repository.head,
                  );
                  expect(ids(await readAll(repository, topic, position))).toEqual(
                    all.slice(-count - 1),
                  );
                }
              }
            };
            await check(log);
            if (!capabilities.reopens) return;
            await close(log);
            const again = await openAt(place);
            await check(again);
            await write(again, plan, 'again-');
            await check(again);
          }),
        ),
        { numRuns: 12 },
      ));

    it('floor() is 0 while nothing was removed', async () => {
      const log = await openNew();
      await log.openWriter().append(checked({ topic: 't' }));
      expect(await log.floor('t')).toBe(0);
    });

    it('removeTopic() removes what a topic has, and nothing of others', async () => {
      const log = await openNew();
      await log.removeTopic('never');
      const writer = log.openWriter();
      const sent = (topic: string, id: string) => writer.append(checked({ topic, id, body: 'x' }));
      const { last: before } = await sent('orders.created', 'other');
      for (let i = 0; i < 10; i++) await sent('orders', `a${i}`);
      const { last } = await sent('orders', 'b');
      await log.removeTopic('orders');
      expect(await log.floor('orders')).toBe(last.position);
      expect(await readAll(log, 'orders', last.position)).toEqual([]);
      expect(await log.positionBeforeLast('orders', 3, log.head)).toBe(last.position);
      const readFromBefore = async () => readAll(log, 'orders', before.position);
      await expect(readFromBefore).rejects.toThrow(EventsRemovedError);
      expect(ids(await readAll(log, 'orders.created'))).toEqual(['other']);
      await sent('orders', 'c');
      await expect(readFromBefore).rejects.toThrow(EventsRemovedError);
      expect(ids(await readAll(log, 'orders', last.position))).toEqual(['c']);
      expect(await log.positionBeforeLast('orders', 3, log.head)).toBe(last.position);
    });

    it('topics() lists the topics that hold events, by prefix and page by page', async () => {
      const place = newPlace();
      let log = await openAt(place);
      expect(await log.topics('', undefined, 10)).toEqual([]);
      const names = ['a', 'a.b', 'a.b.c', 'a.bc', 'ab', 'b', 'b.ü', 'c.1', 'c.2', 'c.3', 'd'];
      await log.openWriter().append(checked(...names.map((topic) => ({ topic }))));
      const check = async (held: readonly string[]): Promise<void> => {
        for (const prefix of ['', 'a', 'a.', 'a.b', 'a.b.', 'ab', 'b.', 'b.ü', 'c.', 'cc', 'dd']) {
          const expected = held.filter((topic) => topic.startsWith(prefix));
          for (const limit of [1, 2, 3, 100]) {
            const found: string[] = [];
            for (let page: readonly string[] = ['first']; page.length > 0;) {
              page = await log.topics(prefix, found.at(-1), limit);
              expect(page.length).toBeLessThanOrEqual(limit);
              found.push(...page);
              expect(found.length).toBeLessThan(20);
            }
            // What was removed may still be named, and holds nothing.
            const holding: string[] = [];
            for (const topic of found) if (await log.heldOf(topic)) holding.push(topic);
            expect(holding.toSorted()).toEqual(expected.toSorted());
            expect(new Set(found).size).toBe(found.length);
          }
        }
      };
      await check(names);
      await log.removeTopic('a.b');
      await log.removeTopic('d');
      const held = names.filter((topic) => topic !== 'a.b' && topic !== 'd');
      await check(held);
      await log.openWriter().append(checked({ topic: 'd' }, { topic: 'e' }));
      await check([...held, 'd', 'e']);
      if (!capabilities.reopens) return;
      await close(log);
      log = await openAt(place);
      await check([...held, 'd', 'e']);
    });

    it('heldOf() and countAfter() say what can be read, also after a removal', () =>
      fc.assert(
        fc.asyncProperty(steps, steps, (plan, later) =>
          withLog(async (log, place) => {
            const begunAt = Date.now();
            const check = async (
              repository: EventRepository,
              floors: ReadonlyMap<string, Position>,
            ): Promise<void> => {
              for (const topic of [...TOPICS, EMPTY_TOPIC]) {
                const all = await readAll(repository, topic, floors.get(topic) ?? 0);
                const held = await repository.heldOf(topic);
                expect(held?.events ?? 0).toBe(all.length);
                for (const after of [0, ...all.map(({ position }) => position), repository.head]) {
                  const rest = all.filter(({ position }) => position > after);
                  expect(await repository.countAfter(topic, after)).toBe(rest.length);
                }
                if (!held) continue;
                const batch = await repository.read(topic, floors.get(topic) ?? 0, 2 ** 30);
                expect(held.bytes).toBe(batch!.bytes.length);
                expect(held.oldest.position).toBe(all[0].position);
                expect(held.newest.position).toBe(all.at(-1)!.position);
                expect(held.oldest.time).toBeGreaterThanOrEqual(begunAt);
                expect(held.newest.time).toBeGreaterThanOrEqual(held.oldest.time);
                expect(held.newest.time).toBeLessThanOrEqual(Date.now());
              }
            };
            await write(log, plan);
            await check(log, new Map());
            await log.removeTopic('orders');
            const floors = new Map([['orders', await log.floor('orders')]]);
            expect(await log.heldOf('orders')).toBeUndefined();
            await check(log, floors);
            await write(log, later, 'later-');
            await check(log, floors);
            if (!capabilities.reopens) return;
            await close(log);
            await check(await openAt(place), floors);
          }),
        ),
        { numRuns: 8 },
      ));

    it('close() stores what was appended before it, and refuses later appends', async () => {
      const place = newPlace();
      const log = await openAt(place);
      const writer = log.openWriter();
      const appends = Array.from({ length: 50 }, (_, i) =>
        writer.append(checked({ topic: 't', id: String(i) })),
      );
      const closing = close(log);
      const outcomes = await Promise.allSettled(appends);
      await closing;
      await expect(writer.append(checked({ topic: 't' }))).rejects.toThrow(AppendError);
      await expect(log.openWriter().append(checked({ topic: 't' }))).rejects.toThrow(AppendError);
      const stored = outcomes.flatMap(({ status }, i) =>
        status === 'fulfilled' ? [String(i)] : [],
      );
      const again = await openAt(place);
      expect(ids(await readAll(again, 't'))).toEqual(capabilities.reopens ? stored : []);
      expect(stored).toHaveLength(50);
    });
  });
}

const errorOf = (error: unknown) => error;

/** Appends a plan's events, and resolves when all are stored. */
async function write(
  log: EventRepository,
  plan: readonly Step[],
  prefix = '',
): Promise<{ sent: Sent[]; appended: { id: string; topic: string; result: Appended }[] }> {
  const writers = new Map<number, EventWriter>();
  const sent: Sent[] = [];
  const appends: Promise<{ id: string; topic: string; result: Appended }>[] = [];
  for (const { writer: w, events, settle } of plan) {
    const writer = writers.get(w) ?? log.openWriter();
    writers.set(w, writer);
    const batch = events.map(([topic, size]) => {
      const id = `${prefix}${w}-${sent.length}`;
      sent.push({ topic, id, writer: w });
      return { topic, id, body: 'x'.repeat(size) };
    });
    const { id, topic } = batch.at(-1)!;
    appends.push(
      writer.append(checked(...batch)).then((result) => {
        expect(log.head).toBeGreaterThanOrEqual(result.last.position);
        return { id, topic, result };
      }),
    );
    if (settle) await Promise.all(appends);
  }
  return { sent, appended: await Promise.all(appends) };
}

async function contents(log: EventRepository): Promise<Map<string, Seen[]>> {
  const found = new Map<string, Seen[]>();
  for (const topic of [...TOPICS, EMPTY_TOPIC]) found.set(topic, await readAll(log, topic));
  return found;
}

async function checkContents(
  log: EventRepository,
  sent: readonly Sent[],
  appended: readonly { id: string; topic: string; result: Appended }[],
): Promise<Map<string, Seen[]>> {
  const found = await contents(log);
  const positions = [...found.values()].flat().map(({ position }) => position);
  expect(new Set(positions).size).toBe(sent.length);
  expect(Math.max(...positions)).toBe(log.head);
  for (const [topic, seen] of found) {
    const expected = sent.filter((event) => event.topic === topic);
    expect(ids(seen).toSorted()).toEqual(ids(expected).toSorted());
    for (const writer of new Set(expected.map((event) => event.writer))) {
      const own = ids(expected.filter((event) => event.writer === writer));
      expect(ids(seen).filter((id) => own.includes(id))).toEqual(own);
    }
  }
  for (const { id, topic, result } of appended) {
    const last = found.get(topic)!.find((event) => event.id === id)!;
    expect(formatCursor(result.last)).toBe(last.cursor);
  }
  return found;
}

/** Makes reads: `share` is where in the log a read begins (0 to 1), `maxBytes` the size of its batches. */
function readings(): fc.Arbitrary<{ share: number; maxBytes: number }[]> {
  return fc.array(
    fc.record({
      share: fc.double({ min: 0, max: 1.05, noNaN: true }),
      maxBytes: fc.oneof(fc.nat(1_000), fc.nat(100_000)),
    }),
    { minLength: 3, maxLength: 6 },
  );
}

async function checkReads(
  log: EventRepository,
  all: ReadonlyMap<string, Seen[]>,
  reads: readonly { share: number; maxBytes: number }[],
): Promise<void> {
  // Positions may be far apart, so it reads around those of events, and not after every number up to the head.
  const positions = [...all.values()].flat().map(({ position }) => position);
  const around = new Set([0, ...positions.flatMap((each) => [each - 1, each, each + 1])]);
  for (const [topic, events] of all) {
    for (const after of around) {
      if (after > log.head) continue;
      const [first] = (await next(log, topic, after, 1)) ?? [];
      expect(first).toEqual(events.find(({ position }) => position > after));
    }
  }
  for (const { share, maxBytes } of reads) {
    const after = Math.round(share * log.head);
    for (const [topic, events] of all) {
      expect(await readAll(log, topic, after, maxBytes)).toEqual(
        events.filter(({ position }) => position > after),
      );
    }
  }
}

/** Reads a topic as a watch does: reads to the end, waits for the bell, and reads on until it has `until` events. */
async function follow(
  log: EventRepository,
  bell: Bell,
  topic: string,
  until: number,
  maxBytes: number,
): Promise<Seen[]> {
  const seen: Seen[] = [];
  for (;;) {
    const rung = bell.next(topic);
    seen.push(...(await readAll(log, topic, seen.at(-1)?.position, maxBytes)));
    if (seen.length >= until) return seen;
    await rung;
  }
}

/** Makes appends: before each, the clock moves by `advance` milliseconds, which may be negative. */
function timedSteps(): fc.Arbitrary<{ advance: number; topics: string[] }[]> {
  return fc.array(
    fc.record({
      advance: fc.oneof(fc.constant(0), fc.integer({ min: -300, max: 1_000 })),
      topics: fc.array(fc.constantFrom(...TOPICS), { minLength: 1, maxLength: 4 }),
    }),
    { minLength: 1, maxLength: 8 },
  );
}
