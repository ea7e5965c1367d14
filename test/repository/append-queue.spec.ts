import { setTimeout as sleep } from 'node:timers/promises';
import * as fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  AppendQueue,
  OvertakenError,
  type QueueBytes,
  type QueueStart,
  type SharedLog,
} from '../../src/repository/append-queue.js';
import { Deduplication } from '../../src/repository/deduplication.js';
import { Epochs } from '../../src/repository/epochs.js';
import { AppendError, type EventWriter } from '../../src/repository/event-repository.js';
import type { FailureReason } from '../../src/repository/log-report.js';
import { RecentIds } from '../../src/repository/recent-ids.js';
import { bytesOf, type StoredRun } from '../../src/repository/stored-run.js';
import { formatCursor, MAX_POSITION } from '../../src/wire/cursor.js';
import { RUN_BYTES } from '../../src/wire/event-batch.js';
import { within } from '../support/wait.js';
import { checked, eventsIn } from '../wire/events.js';

const MIB = 2 ** 20;
const EPOCH = 'abcdef';

/** A store whose commits end when the test says so. */
class Store {
  readonly commits: (readonly StoredRun[])[] = [];
  readonly published: StoredRun[] = [];
  /** What happened, in order. */
  readonly log: string[] = [];
  /** Whether commits wait for finish(). */
  manual = true;
  readonly queue: AppendQueue;
  private under: { resolve: () => void; reject: (error: unknown) => void } | undefined;
  private begun: (() => void) | undefined;

  constructor(start: Partial<QueueStart> = {}, bytes?: QueueBytes) {
    this.queue = new AppendQueue(
      {
        epochs: new Epochs([{ epoch: EPOCH, after: 0 }]),
        head: 0,
        storedAt: 0,
        now: () => Date.now(),
        ...start,
      },
      ({ runs }) => this.commit(runs),
      (runs) => {
        this.published.push(...runs);
        this.log.push(`published ${idsOf(runs).join(' ')}`);
      },
      undefined,
      undefined,
      bytes && { bytes, topics: { refusals: () => undefined } },
    );
  }

  get underWay(): boolean {
    return this.under !== undefined;
  }

  /** Resolves while a commit is under way. */
  async begins(): Promise<void> {
    if (!this.under) await new Promise<void>((resolve) => (this.begun = resolve));
  }

  /** Ends the commit that is under way, or the next one. */
  async finish(error?: unknown): Promise<void> {
    await this.begins();
    const { resolve, reject } = this.under!;
    this.under = undefined;
    if (error === undefined) resolve();
    else reject(error);
    await new Promise(setImmediate);
  }

  append(writer: EventWriter, id: string, bytes = 0, topic = 't'): Promise<string> {
    return writer.append(checked({ id, topic, body: 'x'.repeat(bytes) })).then(
      ({ last }) => {
        this.log.push(`stored ${id}`);
        return formatCursor(last);
      },
      (error: unknown) => {
        this.log.push(`refused ${id}`);
        throw error;
      },
    );
  }

  private commit(runs: readonly StoredRun[]): Promise<void> {
    expect(this.under).toBeUndefined(); // one at a time
    this.commits.push(runs);
    this.log.push(`commit ${idsOf(runs).join(' ')}`);
    if (!this.manual) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.under = { resolve, reject };
      this.begun?.();
      this.begun = undefined;
    });
  }
}

const idsOf = (runs: readonly StoredRun[]) =>
  runs.flatMap(({ bytes }) => eventsIn(bytes).map(({ id }) => id));

/** Whether it is settled by now, without waiting for anything that is not at hand. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const settle = () => void (settled = true);
  promise.then(settle, settle);
  for (let i = 0; i < 3; i++) await new Promise(setImmediate);
  return settled;
}

afterEach(() => vi.restoreAllMocks());

describe('after a failed commit', () => {
  it('nothing else of its writers is stored, and the other writers go on', async () => {
    const store = new Store();
    const [a, b] = [store.queue.openWriter(), store.queue.openWriter()];
    const failed = store.append(a, 'a1');
    await store.begins();
    const later = [store.append(a, 'a2'), store.append(b, 'b1'), store.append(a, 'a3')];
    const outcomes = Promise.allSettled([failed, ...later]);
    await store.finish(new Error('no luck'));
    await store.finish();

    const [a1, a2, b1, a3] = await outcomes;
    for (const refused of [a1, a2, a3]) {
      expect(refused).toMatchObject({
        status: 'rejected',
        reason: { reason: 'refused', message: 'no luck', cause: expect.any(Error) },
      });
      expect((refused as PromiseRejectedResult).reason).toBeInstanceOf(AppendError);
    }
    expect(b1.status).toBe('fulfilled');
    await expect(store.append(a, 'a4')).rejects.toThrow('no luck');
    expect(store.commits.map(idsOf)).toEqual([['a1'], ['b1']]);
    expect(idsOf(store.published)).toEqual(['b1']);
  });

  it('its positions are not given out again', async () => {
    const store = new Store({ head: 10 });
    const failed = store.append(store.queue.openWriter(), 'a');
    failed.catch(() => {});
    await store.finish(new Error('no luck'));
    await expect(failed).rejects.toThrow('no luck');
    const stored = store.append(store.queue.openWriter(), 'b');
    await store.finish();
    expect(await stored).toBe(formatCursor({ epoch: EPOCH, position: 12 }));
  });

  it('every writer in it has failed, with the reason that the store gave', async () => {
    const store = new Store();
    const writers = ['a', 'b', 'c'].map((id) => ({ id, writer: store.queue.openWriter() }));
    const appends = Promise.allSettled(writers.map(({ id, writer }) => store.append(writer, id)));
    const full = new AppendError('storage-full', 'full');
    await store.finish(full);
    for (const outcome of await appends) expect(outcome).toMatchObject({ reason: full });
    store.manual = false;
    for (const { id, writer } of writers) await expect(store.append(writer, id)).rejects.toBe(full);
    await store.append(store.queue.openWriter(), 'd');
    expect(idsOf(store.published)).toEqual(['d']);
  });

  it('a commit with nothing left in it is not made', async () => {
    const store = new Store();
    const writer = store.queue.openWriter();
    const appends = [store.append(writer, '1')];
    await store.begins();
    appends.push(store.append(writer, '2'), store.append(writer, '3'));
    const outcomes = Promise.allSettled(appends);
    await store.finish(new Error('no luck'));
    for (const { status } of await outcomes) expect(status).toBe('rejected');
    expect(store.commits).toHaveLength(1);
    await store.queue.close();
  });

  it('any plan of appends and failures stores a prefix of each writer', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.nat(2), fc.constantFrom('fails', 'works')), { maxLength: 40 }),
        async (plan) => {
          const store = new Store();
          const writers = [0, 1, 2].map(() => store.queue.openWriter());
          const sent: string[][] = [[], [], []];
          const stored = new Set<string>();
          const appends: Promise<void>[] = [];
          const finish = (step: string) =>
            store.finish(step === 'fails' ? new Error('no luck') : undefined);
          for (const step of plan) {
            if (typeof step === 'number') {
              const id = `${step}-${sent[step].push('') - 1}`;
              sent[step][sent[step].length - 1] = id;
              appends.push(
                store.append(writers[step], id).then(
                  () => void stored.add(id),
                  () => {},
                ),
              );
            } else {
              await sleep(2); // for a commit to begin, if there is anything to commit
              if (store.underWay) await finish(step);
            }
          }
          const closed = store.queue.close();
          for (;;) {
            await Promise.race([closed, store.begins()]);
            if (!store.underWay) break;
            await finish('works');
          }
          await Promise.all(appends);
          expect(idsOf(store.published).toSorted()).toEqual([...stored].toSorted());
          sent.forEach((own, w) => {
            const published = idsOf(store.published).filter((id) => id.startsWith(`${w}-`));
            expect(published).toEqual(own.slice(0, published.length));
          });
        },
      ),
      { numRuns: 40 },
    ));
});

describe('a commit', () => {
  it('is all that arrived during the last one, published before anyone is told', async () => {
    const store = new Store();
    const [a, b] = [store.queue.openWriter(), store.queue.openWriter()];
    const appends = [store.append(a, 'a1')];
    await store.begins();
    appends.push(store.append(b, 'b1'), store.append(a, 'a2'), store.append(b, 'b2'));
    expect(await isSettled(Promise.race(appends))).toBe(false);
    expect(store.published).toEqual([]);
    await store.finish();
    await store.finish();
    await Promise.all(appends);
    expect(store.log).toEqual([
      'commit a1',
      'published a1',
      'stored a1',
      'commit b1 a2 b2',
      'published b1 a2 b2',
      'stored b1',
      'stored a2',
      'stored b2',
    ]);
  });

  it('puts small pieces of one topic together, and keeps topics apart', async () => {
    const store = new Store();
    const writer = store.queue.openWriter();
    store.manual = false;
    await Promise.all(
      Array.from({ length: 100 }, (_, i) =>
        store.append(writer, String(i), 1_000, i % 3 ? 't' : 'u'),
      ),
    );
    const runs = store.commits.flat();
    expect(runs.length).toBeLessThan(10);
    for (const { bytes, topic, count, first, last } of runs) {
      const events = eventsIn(bytes);
      expect(bytes.length).toBeLessThanOrEqual(RUN_BYTES);
      expect(new Set(events.map((event) => event.topic))).toEqual(new Set([topic]));
      expect(events.map(({ cursor }) => cursor)).toEqual(
        events.map((_, i) => formatCursor({ epoch: EPOCH, position: first + i })),
      );
      expect([count, last]).toEqual([events.length, first + events.length - 1]);
    }
  });

  it('has runs within the limit, but for single appends over it, and positions without a gap', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            writer: fc.nat(2),
            topics: fc.array(fc.constantFrom('t', 'u', 'v'), { minLength: 1, maxLength: 4 }),
            size: fc.oneof(fc.nat(300), fc.nat(20_000)),
          }),
          { minLength: 1, maxLength: 20 },
        ),
        async (plan) => {
          const store = new Store({ head: 7 });
          store.manual = false;
          const writers = [0, 1, 2].map(() => store.queue.openWriter());
          const pieces = new Set<number>();
          await Promise.all(
            plan.map(async ({ writer, topics, size }, i) => {
              const body = 'x'.repeat(size);
              const events = checked(
                ...topics.map((topic, n) => ({ topic, id: `${i}-${n}`, body })),
              );
              for (const { bytes } of events.topics) pieces.add(bytes.length);
              const { last } = await writers[writer].append(events);
              const lastEvent = store.published
                .flatMap(({ bytes }) => eventsIn(bytes))
                .find(({ id }) => id === `${i}-${topics.length - 1}`);
              expect(lastEvent?.cursor).toBe(formatCursor(last));
            }),
          );
          let position = 7;
          for (const { first, last, bytes } of store.published) {
            expect(first).toBe(position + 1);
            position = last;
            expect(bytes.length <= RUN_BYTES || pieces.has(bytes.length)).toBe(true);
          }
          expect(position).toBe(7 + plan.flatMap(({ topics }) => topics).length);
          for (const topic of ['t', 'u', 'v']) {
            const ids = idsOf(store.published.filter((run) => run.topic === topic));
            for (const writer of [0, 1, 2]) {
              const own = plan.flatMap((step, i) =>
                step.writer === writer
                  ? step.topics.flatMap((of, n) => (of === topic ? [`${i}-${n}`] : []))
                  : [],
              );
              expect(ids.filter((id) => own.includes(id))).toEqual(own);
            }
          }
        },
      ),
      { numRuns: 40 },
    ));

  it('takes no more than about 8 MiB: the rest is the next one', async () => {
    const store = new Store();
    const appends = [store.append(store.queue.openWriter(), 'first')];
    await store.begins();
    for (let i = 0; i < 20; i++) {
      appends.push(store.append(store.queue.openWriter(), String(i), MIB));
    }
    for (let i = 0; i < 4; i++) await store.finish();
    await Promise.all(appends);
    expect(store.commits.map((runs) => runs.length > 0 && bytesOf(runs) < 9.1 * MIB)).toEqual([
      true,
      true,
      true,
      true,
    ]);
    expect(idsOf(store.published)).toEqual([
      'first',
      ...Array.from({ length: 20 }, (_, i) => `${i}`),
    ]);
  });

  it('is dated by a clock that never goes back', async () => {
    const clock = vi.spyOn(Date, 'now');
    const store = new Store({ storedAt: 5_000 });
    store.manual = false;
    const writer = store.queue.openWriter();
    for (const now of [1_000, 6_000, 5_500, 0, 6_001]) {
      clock.mockReturnValue(now);
      await writer.append(checked({ topic: 't', id: 'x', at: { seconds: 1, nanos: 0 } }));
    }
    expect(store.published.map(({ storedAt }) => storedAt)).toEqual([
      5_000, 6_000, 6_000, 6_000, 6_001,
    ]);
  });

  it('is refused, and ends nothing, when the log has no positions left', async () => {
    const store = new Store({ head: MAX_POSITION - 1 });
    store.manual = false;
    await store.append(store.queue.openWriter(), 'last');
    await expect(store.append(store.queue.openWriter(), 'too many')).rejects.toThrow(AppendError);
  });
});

describe('room', () => {
  it('is there at once while the store keeps up', () => {
    const store = new Store();
    const writer = store.queue.openWriter();
    expect(writer.room()).toBeUndefined();
    void store.append(writer, 'small', 1_000);
    expect(writer.room()).toBeUndefined();
    store.manual = false;
  });

  it('of a writer with 1 MiB waiting comes with the commit that takes it', async () => {
    const store = new Store();
    const [busy, other] = [store.queue.openWriter(), store.queue.openWriter()];
    const first = store.append(busy, '1', MIB);
    await store.begins();
    const second = store.append(busy, '2', MIB);
    const room = busy.room()!;
    expect(room).toBeInstanceOf(Promise);
    expect(other.room()).toBeUndefined();
    expect(await isSettled(room)).toBe(false);

    await store.finish(); // '2' is still waiting
    await first;
    expect(await isSettled(room)).toBe(false);
    await store.finish();
    await second;
    await room;
    expect(busy.room()).toBeUndefined();
  });

  it('comes when the commit fails, too', async () => {
    const store = new Store();
    const writer = store.queue.openWriter();
    const append = store.append(writer, '1', MIB);
    append.catch(() => {});
    const room = writer.room();
    await store.finish(new Error('no luck'));
    await room;
    await expect(append).rejects.toThrow('no luck');
    expect(writer.room()).toBeUndefined();
  });

  it('is short for every writer that has something waiting, once all together have 16 MiB', async () => {
    const store = new Store();
    const few = store.queue.openWriter();
    const idle = store.queue.openWriter();
    const appends = [store.append(few, 'few', 100)];
    expect(few.room()).toBeUndefined();
    for (let i = 0; i < 17; i++) appends.push(store.append(store.queue.openWriter(), `${i}`, MIB));
    const room = few.room()!;
    expect(room).toBeInstanceOf(Promise);
    expect(idle.room()).toBeUndefined(); // or a writer might wait for others for ever
    expect(await isSettled(room)).toBe(false);
    store.manual = false;
    await store.finish();
    await room;
    await Promise.all(appends);

    // What is stored is not waiting any more.
    const more = store.append(few, 'more', 100);
    expect(few.room()).toBeUndefined();
    await more;
  });

  it('is as much as the settings say, for a writer and for all', async () => {
    const store = new Store({}, { ofWriter: 1_000, inAll: 2_500 });
    const writers = Array.from({ length: 4 }, () => store.queue.openWriter());
    const appends = writers.slice(0, 2).map((writer, i) => store.append(writer, `${i}`, 900));
    expect(writers[0].room()).toBeUndefined();
    appends.push(store.append(writers[0], 'more', 100));
    expect(writers[0].room()).toBeInstanceOf(Promise);
    expect(writers[1].room()).toBeUndefined();
    appends.push(store.append(writers[2], 'too', 900));
    expect(writers[1].room()).toBeInstanceOf(Promise);
    expect(writers[3].room()).toBeUndefined();
    store.manual = false;
    await Promise.all(appends);
    expect(writers[0].room()).toBeUndefined();
  });
});

describe('close', () => {
  it('of an idle queue is done at once, and what comes later is refused', async () => {
    const store = new Store();
    const writer = store.queue.openWriter();
    await store.queue.close();
    await expect(store.append(writer, 'late')).rejects.toThrow(AppendError);
    await expect(store.append(store.queue.openWriter(), 'late')).rejects.toThrow(AppendError);
    expect(store.commits).toEqual([]);
  });

  it('waits for all that is waiting', async () => {
    const store = new Store();
    const writer = store.queue.openWriter();
    const first = store.append(writer, '1');
    await store.begins();
    const second = store.append(writer, '2');
    const closed = store.queue.close();
    expect(await isSettled(closed)).toBe(false);
    await store.finish();
    await first;
    expect(await isSettled(closed)).toBe(false);
    await store.finish();
    await closed;
    await second;
    expect(idsOf(store.published)).toEqual(['1', '2']);
  });

  it('leaves nobody without an answer who appends while it ends', async () => {
    const store = new Store();
    const writer = store.queue.openWriter();
    const append = (id: string) => writer.append(checked({ id, topic: 't', body: '' }));
    const first = append('first');
    const closed = store.queue.close();
    // Each a turn of the microtasks later than the one before: some come before the log is closed, some after.
    const late = first.then(async () => {
      const answers: Promise<unknown>[] = [];
      for (let i = 0; i < 10; i++) {
        answers.push(append(String(i)));
        await Promise.resolve();
      }
      return Promise.allSettled(answers);
    });
    await store.begins();
    store.manual = false;
    await store.finish();
    await closed;
    const stored = (await late).filter(({ status }) => status === 'fulfilled').length;
    expect(store.published).toHaveLength(1 + stored);
  });

  it('is done for each who asked for it', async () => {
    const store = new Store();
    const stored = store.append(store.queue.openWriter(), '1');
    await store.begins();
    const closed = [store.queue.close(), store.queue.close()];
    await store.finish();
    await stored;
    await within(Promise.all(closed), 'both', 5_000);
    await store.queue.close();
  });

  it('is done when the last commit fails, too', async () => {
    const store = new Store();
    const outcome = Promise.allSettled([store.append(store.queue.openWriter(), '1')]);
    const closed = store.queue.close();
    await store.finish(new Error('no luck'));
    await closed;
    expect((await outcome)[0].status).toBe('rejected');
  });
});

describe('on a log that others write to as well', () => {
  /** A log of 100 positions a run, to which the test adds runs of others. */
  class Shared implements SharedLog {
    head = 0;
    storedAt = 1;
    readonly calls: string[] = [];
    readonly commitBytes = MIB;
    maxRuns = 1_000;
    begin(): Promise<{ head: number; storedAt: number }> {
      this.calls.push('begin');
      return Promise.resolve({ head: this.head, storedAt: this.storedAt });
    }
    settled(): void {
      this.calls.push('settled');
    }
    nextRun(after: number): number {
      return (Math.floor(after / 100) + 1) * 100;
    }
  }

  function open() {
    const shared = new Shared();
    const commits: (readonly StoredRun[])[] = [];
    const recent = new RecentIds({ ids: 100, milliseconds: 60_000 });
    const stored = new Map<number, Buffer>();
    let refusals = 0;
    let failures = 0;
    let reason: FailureReason = 'refused';
    const queue = new AppendQueue(
      { epochs: new Epochs([{ epoch: EPOCH, after: 0 }]), head: 0, storedAt: 0, now: () => 0 },
      ({ runs }) => {
        if (refusals-- > 0) {
          shared.head += 100; // another's run
          return Promise.reject(new OvertakenError());
        }
        if (failures-- > 0) return Promise.reject(new AppendError(reason, 'no'));
        commits.push(runs);
        return Promise.resolve();
      },
      (runs) => {
        for (const run of runs) {
          eventsIn(run.bytes).forEach(({ id }, i) => stored.set(run.first + i, Buffer.from(id)));
          shared.head = run.last;
        }
      },
      new Deduplication(recent, (_topic, position) => stored.get(position)),
      shared,
    );
    const append = (...events: { id: string; topic: string }[]) =>
      queue.openWriter().append(checked(...events));
    const refuse = (times: number) => (refusals = times);
    const fail = (times: number, why: FailureReason = 'refused') => {
      failures = times;
      reason = why;
    };
    return { shared, commits, queue, append, refuse, fail };
  }

  it('each run begins where the log says, and the time does not go back', async () => {
    const { shared, commits, append } = open();
    shared.storedAt = 5;
    await append({ id: 'a', topic: 't' }, { id: 'b', topic: 't' }, { id: 'c', topic: 'u' });
    expect(commits[0].map(({ first, last }) => [first, last])).toEqual([
      [100, 101],
      [200, 200],
    ]);
    expect(commits[0].every(({ storedAt }) => storedAt === 5)).toBe(true);
  });

  it('a commit that others overtook is built again, behind them, with its own ids as before', async () => {
    const { shared, commits, append, refuse } = open();
    await append({ id: 'a', topic: 't' });
    refuse(2);
    const { last, duplicates } = await append({ id: 'a', topic: 't' }, { id: 'b', topic: 't' });
    expect(duplicates).toBe(1);
    expect(last.position).toBe(400);
    expect(eventsIn(commits[1][0].bytes).map(({ cursor }) => cursor)).toEqual([formatCursor(last)]);
    // settled() comes once for each begin(), before the next one.
    expect(shared.calls.join(' ')).toBe('begin settled begin settled begin settled begin settled');
  });

  it('what was requested is stored though the events with it have no room', async () => {
    const { shared, queue, append, fail } = open();
    fail(1, 'storage-full');
    const both = [append({ id: 'a', topic: 't' }), queue.requestCommit()];
    const outcomes = await Promise.allSettled(both);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
    expect(shared.calls.join(' ')).toBe('begin settled begin settled');
  });

  it('a commit has no more runs than the log takes', async () => {
    const { shared, commits, append } = open();
    shared.maxRuns = 3;
    const pair = (n: number) =>
      append({ id: `${n}`, topic: `a${n}` }, { id: `${n}`, topic: `b${n}` });
    await Promise.all([pair(1), pair(2), pair(3)]);
    expect(commits.map(({ length }) => length)).toEqual([2, 2, 2]);
  });

  it('what a failed upload still had takes no room in a commit from the next one', async () => {
    const { shared, queue, append, fail } = open();
    shared.maxRuns = 3;
    fail(1);
    const failing = queue.openWriter();
    const topics = (...names: string[]) => checked(...names.map((topic) => ({ id: topic, topic })));
    const first = failing.append(topics('a'));
    const second = failing.append(topics('b', 'c', 'd'));
    const other = append({ id: 'x', topic: 'e' });
    await expect(first).rejects.toThrow('no');
    await expect(second).rejects.toThrow('no');
    expect((await within(other, 'the other upload', 5_000)).duplicates).toBe(0);
  });
});
