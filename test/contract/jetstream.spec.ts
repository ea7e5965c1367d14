import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import type {
  JetStreamLog,
  JetStreamOptions,
} from '../../src/repository/jetstream/jetstream-log.js';
import {
  CODE,
  RefusedError,
  type StreamApi,
  type StreamInfo,
  UnansweredError,
} from '../../src/nats/stream-api.js';
import { SetupError } from '../../src/nats/setup-error.js';
import { prefixOf } from '../../src/repository/jetstream/stream-config.js';
import {
  AppendError,
  type EventRepository,
  EventsRemovedError,
  StoreUnavailableError,
} from '../../src/repository/event-repository.js';
import { decode, firstOf, sequenceOf } from '../../src/repository/jetstream/message.js';
import type { Tail } from '../../src/repository/tail.js';
import { KEEP_ALL, type RetentionLimits } from '../../src/repository/retention.js';
import { NATS_SERVER } from '../support/nats.js';
import { eventually, until, upToThrice, within } from '../support/wait.js';
import type { Cursor, Position } from '../../src/wire/cursor.js';
import { TopicSet } from '../../src/wire/topic-set.js';
import { checked, eventsIn } from '../wire/events.js';
import { eventRepositoryContract } from './event-repository.js';
import { ids, readAll } from './reading.js';
import { natsForTests, openReplica } from './stream.js';
import { testClock } from './test-clock.js';

/** How long a request of the tests to JetStream may take (milliseconds). */
const PATIENT = { timeout: 30_000 };

/** A program that stores a message, and ends 6 s later. */
const SEND_AND_STAND = `
  import { connect } from '@nats-io/transport-node';
  const [servers, subject, data] = process.argv.slice(1);
  const connection = await connect({ servers });
  await connection.request(subject, Buffer.from(data, 'base64'), { timeout: 30_000 });
  await connection.close();
  setTimeout(() => {}, 6_000);
`;

describe.skipIf(!NATS_SERVER)('jetstream', () => {
  const { server, newStream, open, openStream } = natsForTests();

  eventRepositoryContract(
    'jetstream',
    (place) => openStream(place, { clock: testClock(() => Date.now()) }),
    { reopens: true },
  );

  const append = (log: EventRepository, ...events: readonly (readonly [string, string])[]) =>
    log.openWriter().append(checked(...events.map(([topic, id]) => ({ topic, id }))));

  /** Sends a request to JetStream's API. */
  async function jetstream<T>(operation: string, body: object = {}): Promise<T> {
    const connection = await server().connect();
    try {
      const answer = await connection.request(
        `$JS.API.${operation}`,
        JSON.stringify(body),
        PATIENT,
      );
      const parsed = answer.json<T & { error?: { description: string } }>();
      if (parsed.error) throw new Error(parsed.error.description);
      return parsed;
    } finally {
      await connection.close();
    }
  }

  /** What a replica knows of the log. Its apply() takes each message of the stream. */
  const stateOf = (log: JetStreamLog) =>
    (
      log as unknown as {
        replica: {
          state: {
            applied: number;
            readonly tail: Tail;
            readonly topics: { clear: () => void };
            apply: (message: unknown) => void;
            onMessage: () => void;
            onIdle: () => void;
          };
        };
      }
    ).replica.state;
  const apiOf = (log: JetStreamLog): StreamApi => (log as unknown as { api: StreamApi }).api;

  /** Removes a topic's messages before a sequence, as a janitor does. */
  const removeBefore = (log: JetStreamLog, topic: string, sequence: number): Promise<void> => {
    const { replica } = log as unknown as { replica: { start: { prefix: string } } };
    return apiOf(log).purge(replica.start.prefix + topic, sequence);
  };

  /** Makes the leader of the stream seem a message behind what the replica has, until the returned function is called. */
  function isBehind(log: JetStreamLog): () => void {
    const api = apiOf(log);
    const [info, message] = [api.info.bind(api), api.message.bind(api)];
    const messages = api.messages.bind(api);
    const { applied } = stateOf(log);
    api.info = async (subjects) => {
      const found = await info(subjects);
      return { ...found, state: { ...found.state, last_seq: applied - 1 } };
    };
    api.message = async (query) => {
      const found = await message(query);
      if (!found || found.sequence < applied) return found;
      const newest = decode(found.sequence, '', found.data);
      if (!('last_by_subj' in query && newest.kind === 'run' && newest.previous > 0))
        return undefined;
      return message({ seq: sequenceOf(newest.previous) });
    };
    api.messages = async (...query) =>
      (await messages(...query)).filter(({ sequence }) => sequence < applied);
    return () => Object.assign(api, { info, message, messages });
  }

  /** Reads several topics, as a watch does. */
  async function readSet(log: JetStreamLog, topics: string[], from = 0): Promise<string[]> {
    const reader = log.readerOf(new TopicSet(topics));
    reader.open(0);
    onTestFinished(() => reader.close());
    const seen: string[] = [];
    for (let after = from; after < log.head;) {
      const batch = await reader.read(after, 1_000);
      if (!batch) break;
      seen.push(...eventsIn(batch.bytes).map(({ topic, id }) => topic + id));
      after = batch.last;
    }
    return seen;
  }

  /** Puts something around each conditional publish of a replica. */
  function onPublish(
    log: JetStreamLog,
    around: (publish: () => Promise<number>) => Promise<number>,
  ) {
    const api = apiOf(log);
    const publish = api.publish.bind(api);
    api.publish = (...args) => around(() => publish(...args));
  }

  /** Leaves a replica's first publish without an answer: it is on its way in the cluster. `later` gets the others, and what stores the first. */
  function onLaterPublish(
    log: JetStreamLog,
    later: (
      call: number,
      publish: () => Promise<number>,
      storeFirst: () => Promise<number>,
    ) => Promise<number>,
  ) {
    let storeFirst: (() => Promise<number>) | undefined;
    let calls = 0;
    onPublish(log, (publish) => {
      calls++;
      if (storeFirst) return later(calls, publish, storeFirst);
      storeFirst = publish;
      return Promise.reject(new UnansweredError('dropped by the test'));
    });
  }

  describe('two replicas', () => {
    it('store one log, whatever each is sent: all once, in the order of each writer', async () => {
      const stream = newStream();
      const dedup = { ids: 10_000, milliseconds: 60_000 };
      const logs = [await open(stream, { dedup }), await open(stream, { dedup })];
      const perWriter = 100;
      let duplicates = 0;
      // Both are sent the same ids, at the same time.
      const writers = logs.flatMap((log) =>
        ['a', 'b'].map(async (topic) => {
          const writer = log.openWriter();
          for (let i = 0; i < perWriter; i++) {
            const appended = await writer.append(
              checked({ topic, id: String(i) }, { topic: 'c', id: `${topic}${i}` }),
            );
            duplicates += appended.duplicates;
          }
        }),
      );
      await Promise.all(writers);
      await until(() => logs[0].head === logs[1].head, 'the same head on both');
      const inOrder = Array.from({ length: perWriter }, (_, i) => String(i));
      for (const topic of ['a', 'b', 'c']) {
        const [one, other] = [await readAll(logs[0], topic), await readAll(logs[1], topic)];
        expect(one).toEqual(other);
        if (topic !== 'c') expect(ids(one)).toEqual(inOrder);
        else expect(one).toHaveLength(2 * perWriter);
      }
      expect(duplicates).toBe(4 * perWriter);
    });

    it('a cursor of one is good on the other at once', async () => {
      const stream = newStream();
      const [one, other] = [await open(stream), await open(stream)];
      // The other one is slow to hear of it.
      const state = stateOf(other);
      const apply = state.apply.bind(state);
      state.apply = (message) => void setTimeout(() => apply(message), 20);
      state.onIdle = () => {};
      const writer = one.openWriter();
      for (let i = 0; i < 30; i++) {
        const { last } = await writer.append(checked({ topic: 't', id: String(i) }));
        await other.catchUp();
        expect(other.locate(last)).toBe('in-log');
      }
      expect(other.locate({ ...one.cursorAt(one.head), position: one.head + 1 })).toBe('ahead');
    });

    it('a cursor of one is good on the other where the leader of the stream is behind both', async () => {
      const stream = newStream();
      const one = await open(stream);
      await append(one, ['t', 'a'], ['t', 'b']);
      const other = await open(stream);
      const { replica } = other as unknown as {
        replica: { follower: { watchdog: NodeJS.Timeout } };
      };
      clearInterval(replica.follower.watchdog); // Where the machine stands still, it would follow anew, and find the leader behind.
      isBehind(other);
      const state = stateOf(other);
      const apply = state.apply.bind(state);
      state.apply = (message) => void setTimeout(() => apply(message), 100);
      // Its epoch is one that the other replica does not know yet.
      const { last } = await append(await open(stream), ['t', 'c']);
      await other.catchUp(last);
      expect(other.locate(last)).toBe('in-log');
    });

    it('a cursor of one is good on the other, which stands still while its message comes', async () => {
      const stream = newStream();
      const one = await open(stream);
      const log = await open(stream);
      await one.catchUp();
      const { replica } = log as unknown as { replica: { locate(cursor: Cursor): string } };
      const locate = replica.locate.bind(replica);
      let looks = 0;
      replica.locate = (cursor) => {
        looks++;
        return locate(cursor);
      };
      const sequence = stateOf(log).applied + 1;
      const caughtUp = log.catchUp({ ...log.cursorAt(log.head), position: firstOf(sequence) });
      await until(() => looks > 0, 'a wait for the message of the cursor');
      apiOf(one).publish = ([{ subject, data }]) => {
        // Another process sends it, while this one does nothing for longer than that wait.
        const args = [server().url, subject, Buffer.from(data).toString('base64')];
        execFileSync(process.execPath, ['--input-type=module', '-e', SEND_AND_STAND, ...args]);
        return Promise.resolve(sequence);
      };
      const { last } = await append(one, ['t', 'a']);
      await caughtUp;
      expect(log.locate(last)).toBe('in-log');
    });

    it('a leader that is behind a replica is not taken for that of another stream', async () => {
      const stream = newStream();
      const one = await open(stream);
      await append(one, ['t', 'a'], ['t', 'b']);
      const other = await open(stream);
      const catchesUp = isBehind(other);
      // Their commits are refused in turn, and each asks then where the stream ends.
      const writers = Promise.all(
        [one, other].map(async (log, k) => {
          for (let i = 0; i < 20; i++) await append(log, ['t', `${k}-${i}`]);
        }),
      );
      (other as unknown as { replica: { suspect(): void } }).replica.suspect();
      await sleep(1_000);
      catchesUp();
      await writers;
      await other.catchUp();
      expect(other.history).toBe(0);
      expect(await readAll(other, 't')).toHaveLength(42);
    });

    it('a replica that joins late has the epochs, the ids and the events of the others', async () => {
      const stream = newStream();
      const dedup = { ids: 1_000, milliseconds: 60_000 };
      const one = await open(stream, { dedup });
      const first = await append(one, ['t', 'a'], ['u', 'b']);
      const late = await open(stream, { dedup });
      expect(late.head).toBe(one.head);
      expect(late.locate(first.last)).toBe('in-log');
      const again = await append(late, ['t', 'a'], ['u', 'b'], ['t', 'c']);
      expect(again.duplicates).toBe(2);
      expect(again.last.epoch).not.toBe(first.last.epoch);
      // The first replica goes on in the epoch that the second one began.
      await until(() => one.head === late.head, 'the same head');
      expect((await append(one, ['t', 'd'])).last.epoch).toBe(again.last.epoch);
      expect(ids(await readAll(one, 't'))).toEqual(['a', 'c', 'd']);
    });
  });

  describe('where the leader is a message behind a replica, an event that the replica has', () => {
    /** Opens a replica that has the events, each of a commit of its own, while its leader lacks the last one for half a second. */
    const openAhead = (...events: (readonly [string, string])[]) => openAheadWith({}, events);

    async function openAheadWith(
      options: Partial<JetStreamOptions>,
      events: readonly (readonly [string, string])[],
    ) {
      const stream = newStream();
      const one = await open(stream, options);
      const log = await open(stream, options);
      const positions: Position[] = [];
      for (const event of events) positions.push((await append(one, event)).last.position);
      await log.catchUp();
      const catchesUp = isBehind(log);
      setTimeout(catchesUp, 500);
      return { log, one, positions };
    }

    it('comes to a watch of several topics that begins before it', async () => {
      const { log, positions } = await openAhead(['t', 'a'], ['u', 'b'], ['t', 'c']);
      expect(await readSet(log, ['t', 'u'], positions[1])).toEqual(['tc']);
    });

    it('comes to a watch that is behind the tail', async () => {
      const { log, positions } = await openAhead(['t', 'a'], ['x', 'b'], ['t', 'c']);
      stateOf(log).tail.forget(log.head);
      const batch = await log.read('t', positions[0], 1_000);
      expect(eventsIn(batch!.bytes).map(({ id }) => id)).toEqual(['c']);
    });

    it('is no removed event of a topic that has no other', async () => {
      const { log, positions } = await openAhead(['x', 'a'], ['t', 'b']);
      expect(await log.floor('t')).toBeLessThanOrEqual(positions[0]);
    });

    it('is found by its time, and as one of the last', async () => {
      const { log, positions } = await openAhead(['t', 'a'], ['t', 'b']);
      expect(await log.positionBeforeLast('t', 1, log.head)).toBe(positions[1] - 1);
      const later = await openAhead(['t', 'a'], ['u', 'b']);
      expect(await later.log.positionBefore('u', 0)).toBe(later.positions[1] - 1);
    });

    it('is counted', async () => {
      const { log } = await openAhead(['t', 'a'], ['t', 'b']);
      expect(await log.heldOf('t')).toMatchObject({ events: 2 });
    });

    it('is counted where the replica does not know its topic any more', async () => {
      const topics = [
        ['t', 'a'],
        ['t', 'b'],
      ] as const;
      const counts = [
        (log: JetStreamLog) => log.heldOf('t').then((held) => held!.events),
        (log: JetStreamLog) => log.countAfter('t', 0),
        async (log: JetStreamLog) => {
          const before = await log.positionBeforeLast('t', 2, log.head);
          return (await readAll(log, 't', before)).length;
        },
      ];
      for (const count of counts) {
        const { log } = await openAhead(...topics);
        stateOf(log).topics.clear();
        expect(await count(log)).toBe(2);
      }
    });

    it.each(['x', 't'])(
      'is what the next one follows, though the replica does not know its topic any more, after an event of %s',
      async (before) => {
        const { log, one } = await openAhead([before, 'a'], ['t', 'b']);
        stateOf(log).topics.clear();
        await append(log, ['t', 'c']);
        await one.catchUp();
        expect([log.history, one.history]).toEqual([0, 0]);
        expect(await one.heldOf('t')).toMatchObject({ events: before === 't' ? 3 : 2 });
      },
    );

    it('is not stored again', async () => {
      const dedup = { ids: 1_000, milliseconds: 60_000 };
      const { log } = await openAheadWith({ dedup }, [
        ['x', 'a'],
        ['t', 'b'],
      ]);
      stateOf(log).tail.runAt = () => undefined; // It is in memory no more.
      expect((await append(log, ['t', 'b'])).duplicates).toBe(1);
    });

    it('is of no new topic, of which the log may hold no more', async () => {
      const { log } = await openAheadWith({ maxTopics: 2 }, [
        ['x', 'a'],
        ['t', 'b'],
      ]);
      stateOf(log).topics.clear();
      await append(log, ['t', 'c']);
      await expect(append(log, ['u', 'd'])).rejects.toThrow('FEED_MAX_TOPICS');
    });

    it.each(['x', 't'])('is removed with its topic, after an event of %s', async (before) => {
      const { log, one } = await openAhead([before, 'a'], ['t', 'b']);
      await log.removeTopic('t');
      expect(await one.heldOf('t')).toBeUndefined();
    });

    it.each(['another', 'the same'])(
      'does not make the stream another one, though the leader is behind again and again, by %s',
      async (which) => {
        const stream = newStream();
        const one = await open(stream);
        const log = await open(stream);
        await append(one, ['t', 'a']);
        for (const wait of [0, 6_000]) {
          await sleep(wait);
          if (which === 'another') await append(one, ['t', 'b']);
          await log.catchUp();
          const catchesUp = isBehind(log);
          setTimeout(catchesUp, 500);
          await log.floor('none');
        }
        expect(log.history).toBe(0);
      },
    );

    it.each(['', ', also where the replica that joins anew is lost meanwhile'])(
      'does not make the stream another one, though the leader lacks it for so long that nothing goes on%s',
      async (more) => {
        const stream = newStream();
        const one = await open(stream);
        const log = await open(stream);
        const { last } = await append(one, ['t', 'a'], ['u', 'a']);
        await log.catchUp();
        const { applied, tail } = stateOf(log);
        const set = log.readerOf(new TopicSet(['t', 'u']));
        set.open(0);
        onTestFinished(() => set.close());
        /** Reads the set after a position, as far as there is something. */
        const readOn = async (after: Position): Promise<string[]> => {
          const batch = await set.read(after, 1_000);
          if (!batch) return [];
          const seen = eventsIn(batch.bytes).map(({ topic, id }) => topic + id);
          return [...seen, ...(await readOn(batch.last))];
        };
        const hasChanged = new Promise<void>((resolve) => log.onHistoryChange(resolve));

        // As a single server whose disk is full: it says so until its restart, and stores nothing.
        const api = apiOf(log);
        const publish = api.publish.bind(api);
        const catchesUp = isBehind(log);
        const fails = () => Promise.reject(new UnansweredError('the disk is full'));
        api.publish = fails;
        // Two reads of what is not in memory, which this replica gets no answer to.
        const { replica } = log as unknown as { replica: { ofWatches: object } };
        Object.assign(replica.ofWatches, { read: fails, ofPattern: fails });
        tail.forget(log.head);
        const reading = Promise.all([log.read('t', 0, 1_000)!, set.read(0, 1_000)!]);
        await expect(log.floor('none')).rejects.toThrow(StoreUnavailableError);
        // It has lost its history, so it can't tell whether a cursor is good.
        await expect(log.catchUp()).rejects.toThrow(StoreUnavailableError);
        await append(one, ['t', 'b'], ['u', 'b']);
        catchesUp();
        api.publish = publish;
        if (more) loseNewcomer(log, applied);

        await hasChanged;
        expect(log.history).toBe(0);
        expect(log.locate(last)).toBe('in-log');
        const [ofTopic, ofSet] = (await reading).map((batch) => ids(eventsIn(batch!.bytes)));
        expect([ofTopic, ofSet]).toEqual([
          ['a', 'b'],
          ['a', 'a', 'b', 'b'],
        ]);
        await append(log, ['t', 'c'], ['u', 'c']);
        expect(await readOn(last.position)).toEqual(['tb', 'ub', 'tc', 'uc']);
        const { last: after } = await append(log, ['t', 'd']);
        await append(log, ['u', 'd']);
        expect(await readOn(after.position)).toEqual(['ud']);
      },
    );

    /** Makes the replica that joins anew lose its history when it asks for what the one before it had last. */
    function loseNewcomer(log: JetStreamLog, applied: number): void {
      const api = apiOf(log);
      const message = api.message.bind(api);
      api.message = async (query) => {
        const { newcomer } = log as unknown as {
          newcomer?: { history: { lose(why: string): void } };
        };
        const isContinuing = newcomer && 'seq' in query && query.seq === applied;
        if (isContinuing) {
          api.message = message;
          newcomer.history.lose('the test says so');
        }
        return message(query);
      };
    }
  });

  it('the first event of a topic, which comes to the leader first, is not waited for', async () => {
    const stream = newStream();
    const one = await open(stream);
    const log = await open(stream);
    await log.catchUp();
    stateOf(log).apply = stateOf(log).onIdle = () => {};
    await append(one, ['t', 'a']);
    expect(await log.heldOf('t')).toBeUndefined();
    expect(await log.countAfter('t', -1)).toBe(0);
    expect(await log.positionBeforeLast('t', 1, log.head)).toBe(await log.floor('t'));
  });

  it('does not wait for ever for a stream that delivers nothing', async () => {
    const stream = newStream();
    const one = await open(stream);
    // Where the machine stands still, this patience is too short for what a start asks.
    const log = await eventually(async () => {
      const opened = await open(stream, { patience: 500 });
      await opened.catchUp();
      return opened;
    });
    stateOf(log).onMessage = stateOf(log).onIdle = () => {};
    const { last } = await append(one, ['t', 'a']);
    await expect(log.catchUp()).rejects.toThrow(StoreUnavailableError);
    await expect(log.catchUp(last)).rejects.toThrow(StoreUnavailableError);
  });

  it('an upload of more topics than a batch of JetStream may have is stored whole', async () => {
    const log = await open(newStream());
    const writer = log.openWriter();
    const appends = Array.from({ length: 5 }, (_, k) =>
      writer.append(
        checked(...Array.from({ length: 900 }, (_each, i) => ({ topic: `t${k}.${i}`, id: '' }))),
      ),
    );
    for (const { duplicates } of await Promise.all(appends)) expect(duplicates).toBe(0);
    for (const topic of ['t0.0', 't2.450', 't4.899'])
      expect(await readAll(log, topic)).toHaveLength(1);
  });

  it('an event that is larger than what the server takes by now is refused, and says so; others are stored', async () => {
    const log = await open(newStream());
    const { info } = apiOf(log).connection;
    Object.assign(info!, { max_payload: 100_000 });
    const large = { topic: 't', id: 'large', body: 'x'.repeat(100_000) };
    await expect(log.openWriter().append(checked(large))).rejects.toMatchObject({
      reason: 'refused',
      message: expect.stringContaining('raise its max_payload') as string,
    });
    const both = checked({ topic: 'u', id: 'small' }, large);
    await expect(log.openWriter().append(both)).rejects.toMatchObject({ reason: 'refused' });
    await append(log, ['t', 'a'], ['u', 'a']);
    expect([await readAll(log, 't'), await readAll(log, 'u')].map(ids)).toEqual([['a'], ['a']]);
  });

  it('finds duplicates of events that are in memory no more', async () => {
    const stream = newStream();
    const dedup = { ids: 100_000, milliseconds: 600_000 };
    const log = await open(stream, { dedup });
    const send = async (): Promise<number> => {
      let duplicates = 0;
      const writer = log.openWriter();
      for (let i = 0; i < 50; i++) {
        const events = Array.from({ length: 20 }, (_, k) => ({
          topic: `t${k % 3}`,
          id: `${i}-${k}`,
          body: 'x'.repeat(50_000),
        }));
        ({ duplicates } = await writer.append(checked(...events)).then((appended) => ({
          duplicates: duplicates + appended.duplicates,
        })));
      }
      return duplicates;
    };
    expect(await send()).toBe(0); // 50 MB, more than the tail's 32 MiB
    const head = log.head;
    expect(await send()).toBe(1_000);
    expect(log.head).toBe(head);
  });

  describe('with answers that are lost', () => {
    it('knows its own commit again: stored once, and no duplicate of itself', async () => {
      const log = await open(newStream(), { dedup: { ids: 100, milliseconds: 60_000 } });
      let drops = 2;
      onPublish(log, async (publish) => {
        const sequence = await publish();
        if (drops-- > 0) throw new UnansweredError('dropped by the test');
        return sequence;
      });
      expect((await append(log, ['t', 'a'], ['u', 'b'])).duplicates).toBe(0);
      expect(ids(await readAll(log, 't'))).toEqual(['a']);
      expect(log.history).toBe(0);
    });

    it("does not take another's commit for its own", async () => {
      const stream = newStream();
      const dedup = { ids: 100, milliseconds: 60_000 };
      const [log, other] = [await open(stream, { dedup }), await open(stream, { dedup })];
      let isFirst = true;
      onPublish(log, async (publish) => {
        if (!isFirst) return publish();
        isFirst = false;
        // The request is lost, and another replica stores something in its place.
        await append(other, ['t', 'others']);
        throw new UnansweredError('dropped by the test');
      });
      await append(log, ['t', 'own']);
      expect(ids(await readAll(log, 't'))).toEqual(['others', 'own']);
    });

    const wrongLast = () => new RefusedError(CODE.wrongLastSequence, 'by the test');

    it.each([
      ['when it is sent once more', ''],
      ['when it is sent once more', 'a'],
      ['between two questions about it', ''],
      ['between two questions about it', 'a'],
    ])(
      'knows its own commit again that the leader stores late, %s, of an event with the id "%s"',
      async (when, id) => {
        const log = await open(newStream(), { dedup: { ids: 100, milliseconds: 60_000 } });
        await append(log, ['t', 'before']);
        const api = apiOf(log);
        const message = api.message.bind(api);
        onLaterPublish(log, async (call, publish, storeFirst) => {
          if (call === 2) {
            if (when.startsWith('between'))
              api.message = async (query) => {
                const answer = await message(query);
                api.message = message;
                await storeFirst();
                return answer;
              };
            // A leader also compares with what is on its way.
            throw wrongLast();
          }
          if (call === 3 && when.startsWith('when')) await storeFirst();
          return publish();
        });
        expect((await append(log, ['t', id])).duplicates).toBe(0);
        expect(await readAll(log, 't')).toHaveLength(2);
        expect(log.history).toBe(0);
      },
    );

    it('knows its own commit again that the leader stores late, though it refuses it for want of room when it is sent once more', async () => {
      const log = await open(newStream());
      let calls = 1;
      onLaterPublish(log, async (call, publish, storeFirst) => {
        calls = call;
        // A leader also counts what is on its way.
        if (call === 2) throw new RefusedError(CODE.maxBytes, 'by the test');
        await storeFirst();
        return publish();
      });
      await append(log, ['t', 'a']);
      expect(ids(await readAll(log, 't'))).toEqual(['a']);
      expect(calls).toBe(3);
    });

    it("does not wait for ever for another's commit that the leader never stores", async () => {
      const log = await open(newStream(), { patience: 1_000 });
      const api = apiOf(log);
      const publish = api.publish.bind(api);
      api.publish = () => Promise.reject(wrongLast());
      const refused = within(append(log, ['t', 'refused']), 'the end of the upload').finally(
        () => (api.publish = publish),
      );
      await expect(refused).rejects.toMatchObject({ reason: 'unavailable' });
      await append(log, ['t', 'own']);
      expect(ids(await readAll(log, 't'))).toEqual(['own']);
    });

    it("waits for another's commit that the leader has not stored yet, and then builds its own", async () => {
      const log = await open(newStream());
      const refusedAt: number[] = [];
      onPublish(log, async (publish) => {
        if (refusedAt.length === 10) return publish();
        refusedAt.push(performance.now());
        throw wrongLast();
      });
      await append(log, ['t', 'own']);
      expect(ids(await readAll(log, 't'))).toEqual(['own']);
      expect(refusedAt[9] - refusedAt[0]).toBeGreaterThan(800);
    });

    it.each(['an older', 'no'])(
      'is not taken for another history where a new leader that lags has %s record of the epochs',
      async (which) => {
        const stream = newStream();
        const [log, other] = [await open(stream), await open(stream)];
        await append(other, ['t', 'before']);
        await log.catchUp();
        const api = apiOf(log);
        const [info, message] = [api.info.bind(api), api.message.bind(api)];
        let isRefused = false;
        let leader: 'old' | 'lagging' | 'new' = 'old';
        onPublish(log, (publish) => {
          if (isRefused) return publish();
          isRefused = true;
          api.message = (query) => {
            if (!('last_by_subj' in query)) return message(query);
            if (leader === 'old') {
              leader = 'lagging';
              setTimeout(() => (leader = 'new'), 500);
            }
            if (leader === 'new') return message(query);
            return which === 'no' ? Promise.resolve(undefined) : message({ seq: 1 });
          };
          api.info = async (subjects) => {
            const found = await info(subjects);
            if (leader !== 'lagging') return found;
            return { ...found, state: { ...found.state, last_seq: found.state.last_seq - 1 } };
          };
          throw wrongLast();
        });
        await append(log, ['t', 'own']);
        expect(log.history).toBe(0);
        expect(ids(await readAll(log, 't'))).toEqual(['before', 'own']);
      },
    );

    it('knows its own commit again of which a new leader that lags has nothing yet', async () => {
      const log = await open(newStream());
      await append(log, ['t', 'before']);
      const api = apiOf(log);
      const [info, message] = [api.info.bind(api), api.message.bind(api)];
      // The tail does not bring it meanwhile.
      stateOf(log).onMessage = stateOf(log).onIdle = () => {};
      let isFirst = true;
      onPublish(log, async (publish) => {
        if (!isFirst) return publish();
        isFirst = false;
        const sequence = await publish();
        let isLagging = false;
        api.message = (query) => {
          if (!('seq' in query && query.seq === sequence)) return message(query);
          api.message = message;
          isLagging = true;
          setTimeout(() => (isLagging = false), 500);
          return Promise.resolve(undefined);
        };
        api.info = async (subjects) => {
          const found = await info(subjects);
          if (!isLagging) return found;
          return { ...found, state: { ...found.state, last_seq: sequence - 1 } };
        };
        throw new UnansweredError('dropped by the test');
      });
      await within(append(log, ['t', 'own']), 'the acknowledgement');
      expect(log.head).toBe(firstOf(stateOf(log).applied));
    });
  });

  it('two replicas take turns, so that few commits are refused', async () => {
    const stream = newStream();
    const logs = [await open(stream), await open(stream)];
    const count = { stored: 0, refused: 0 };
    for (const log of logs)
      onPublish(log, async (publish) => {
        try {
          await sleep(8); // as long as servers take that flush
          const sequence = await publish();
          count.stored++;
          return sequence;
        } catch (error) {
          count.refused++;
          throw error;
        }
      });
    // Where the machine is so busy that a commit takes longer than a turn, more are refused.
    await eventually(async () => {
      count.stored = count.refused = 0;
      const end = performance.now() + 2_000;
      const shares = await Promise.all(
        logs.map(async (log) => {
          let appends = 0;
          for (const writer = log.openWriter(); performance.now() < end; appends++)
            await writer.append(checked({ topic: 't', id: '' }));
          return appends;
        }),
      );
      expect(count.refused).toBeLessThan(0.3 * count.stored);
      expect(Math.min(...shares)).toBeGreaterThan(0.25 * Math.max(...shares));
    });
  });

  describe('behind the tail', () => {
    /** Opens a replica that has the events of another one not in memory. */
    async function openBehind(events: number): Promise<JetStreamLog> {
      const stream = newStream();
      const before = await open(stream);
      for (let i = 0; i < events; i++) await append(before, ['t', String(i)], ['u', String(i)]);
      await before.close();
      return open(stream);
    }
    const all = (count: number) => Array.from({ length: count }, (_, i) => String(i));

    it('asks the leader where another server has nothing yet', async () => {
      const log = await openBehind(5);
      apiOf(log).messages = () => Promise.resolve([]);
      expect(ids(await readAll(log, 't'))).toEqual(all(5));
    });

    it('skips no run that a server leaves out', async () => {
      const log = await openBehind(6);
      const api = apiOf(log);
      const messages = api.messages.bind(api);
      api.messages = async (...query) => (await messages(...query)).filter((_, i) => i !== 1);
      expect(ids(await readAll(log, 't'))).toEqual(all(6));
    });

    it.each(['reads of open watches', 'starts of watches'])(
      'many %s at once ask for a little at a time, and hold up no other work',
      async (kind) => {
        const log = await openBehind(5);
        const api = apiOf(log);
        const [messages, message] = [api.messages.bind(api), api.message.bind(api)];
        const answers = Promise.withResolvers<void>();
        let waiting = 0;
        let most = 0;
        const late = async <T>(question: () => Promise<T>): Promise<T> => {
          most = Math.max(most, ++waiting);
          await answers.promise;
          waiting--;
          return question();
        };
        const read = async () => ids(await readAll(log, 't'));
        const start = () => log.floor('t');
        const isRead = kind.startsWith('reads');
        const isLate: Partial<StreamApi> = isRead
          ? { messages: (...query) => late(() => messages(...query)) }
          : { message: (query) => late(() => message(query)) };
        Object.assign(api, isLate);
        const crowd = Array.from({ length: 200 }, (): Promise<unknown> =>
          isRead ? read() : start(),
        );
        await until(() => waiting > 0, 'a question');
        Object.assign(api, { messages, message });
        // A commit of a topic that this replica has not met asks as well.
        await append(log, ['another', '1']);
        const other = await within<unknown>(isRead ? start() : read(), 'other work');
        expect(other).toEqual(isRead ? 0 : all(5));
        Object.assign(api, isLate);
        answers.resolve();
        for (const found of await Promise.all(crowd)) expect(found).toEqual(isRead ? all(5) : 0);
        expect(most).toBeLessThan(40);
      },
    );

    it('of several topics, it asks the leader where another server lags or leaves out a run', async () => {
      const log = await openBehind(6);
      const both = all(6).flatMap((id) => ['t' + id, 'u' + id]);
      const api = apiOf(log);
      const messages = api.messages.bind(api);
      const leftOut =
        (...left: number[]) =>
        (_: unknown, i: number, found: readonly unknown[]) =>
          // The last run of a topic is not missed before there is a later one.
          left.includes(i) && i < found.length - 2;
      const nothingYet = (): boolean => true;
      for (const isMissing of [
        leftOut(0),
        leftOut(0, 1, 2),
        leftOut(1),
        leftOut(1, 2),
        nothingYet,
      ]) {
        api.messages = async (...query) =>
          (await messages(...query)).filter((...one) => !isMissing(...one));
        expect(await readSet(log, ['t', 'u'])).toEqual(both);
        expect(await readSet(log, ['u', '*.x'])).toEqual(all(6).map((id) => 'u' + id));
      }
    });

    it('of several topics, it passes by nothing that is removed while the leader is asked for what a server left out', async () => {
      const log = await openBehind(4);
      const [{ position }] = await readAll(log, 'u');
      const first = sequenceOf(position);
      const api = apiOf(log);
      const [messages, message] = [api.messages.bind(api), api.message.bind(api)];
      api.messages = async (...query) => (await messages(...query)).filter((_, i) => i !== 1);
      api.message = async (query) => {
        const isOfNext = 'next_by_subj' in query && query.seq === first;
        if (isOfNext) await removeBefore(log, 'u', first + 1);
        return message(query);
      };
      await expect(readSet(log, ['t', 'u'], position - 1)).rejects.toThrow(EventsRemovedError);
    });

    it('many starts of watches of a pattern ask once where each of its topics begins, until something more is removed', async () => {
      const log = await open(newStream());
      const names = all(60).map((id) => `t.${id}`);
      const appendAll = () => append(log, ...names.map((name) => [name, ''] as const));
      const { last } = await appendAll();
      await appendAll();
      const removeFirst = (name: string) => removeBefore(log, name, sequenceOf(last.position) + 1);
      const floors = (): Promise<Position[]> =>
        Promise.all(all(30).map(() => log.readerOf(new TopicSet(['t.*'])).floor()));
      const asked = vi.spyOn(apiOf(log), 'message');
      for (const name of ['t.5', 't.6']) {
        await removeFirst(name);
        const floor = await log.floor(name);
        asked.mockClear();
        expect(await floors()).toEqual(all(30).map(() => floor));
        expect(await floors()).toEqual(all(30).map(() => floor));
        expect(asked.mock.calls.length).toBeLessThan(2 * names.length);
      }
    });

    it('many starts of watches list their topics one after another', async () => {
      const log = await openBehind(2);
      await removeBefore(log, 'u', stateOf(log).applied - 1);
      const api = apiOf(log);
      const info = api.info.bind(api);
      let lists = 0;
      let most = 0;
      api.info = async (subjects) => {
        if (!subjects) return info();
        most = Math.max(most, ++lists);
        return info(subjects).finally(() => lists--);
      };
      const starts = all(20).map((id) => log.readerOf(new TopicSet(['*', `x.${id}`])).floor());
      const [floor, ...others] = await Promise.all(starts);
      expect(floor).toBe(await log.floor('u'));
      expect(others).toEqual(others.map(() => floor));
      expect(most).toBe(1);
    });

    describe('of many topics, while messages are removed all the while', () => {
      const names = Array.from({ length: 300 }, (_, i) => `t.${i}`);

      /** Opens a reader of many topics, each of which has five events, that are not in memory. It has read the first ones. */
      async function openReader() {
        const stream = newStream();
        const before = await open(stream);
        const rounds: Position[] = [];
        for (const id of all(5))
          rounds.push(
            (await append(before, ...names.map((name) => [name, id] as const))).last.position,
          );
        await before.close();
        const log = await open(stream);
        const reader = log.readerOf(new TopicSet(['t.>']));
        onTestFinished(() => reader.close());
        let removed = 0;
        const removeOne = () => removeBefore(log, names[removed++], sequenceOf(rounds[0]) + 1);
        await removeOne();
        await reader.floor();
        reader.open(rounds[0]);
        let [after] = rounds;
        /** Reads the next events, after one more of the first ones was removed. */
        const next = async (): Promise<string[]> => {
          await removeOne();
          const batch = await reader.read(after, 1_000);
          after = batch!.last;
          return eventsIn(batch!.bytes).map(({ topic, id }) => `${topic} ${id}`);
        };
        /** Reads up to the end. */
        const rest = async (): Promise<string[]> => {
          const seen: string[] = [];
          while (after < log.head) seen.push(...(await next()));
          return seen;
        };
        return { log, next, rest, rounds };
      }
      const expected = ['1', '2', '3', '4'].flatMap((id) => names.map((name) => `${name} ${id}`));

      it('it asks seldom where each of them begins', async () => {
        const { log, rest } = await openReader();
        const api = apiOf(log);
        const message = api.message.bind(api);
        let questions = 0;
        api.message = (query) => {
          questions++;
          return message(query);
        };
        expect(await rest()).toEqual(expected);
        expect(questions).toBeLessThan(5 * names.length);
      });

      it('it passes by none that is removed before it is read', async () => {
        const { log, next, rest, rounds } = await openReader();
        expect(await next()).toContain(expected[0]);
        // The topic's next event is too far behind this one to show that it is missing.
        await removeBefore(log, names[150], sequenceOf(rounds[1]) + 1);
        await expect(rest()).rejects.toThrow(EventsRemovedError);
      });

      it('it passes by none that is removed behind what is listed', async () => {
        const { log, next, rest, rounds } = await openReader();
        while (!(await next()).includes(`${names[150]} 2`));
        await removeBefore(log, names[150], sequenceOf(rounds[3]) + 1);
        await expect(rest()).rejects.toThrow(EventsRemovedError);
      });

      it('it asks the leader for one that another server lacks', async () => {
        const { log, next, rest, rounds } = await openReader();
        const seen = await next();
        const api = apiOf(log);
        const messages = api.messages.bind(api);
        const lacking = sequenceOf(rounds[1]) - 149;
        api.messages = async (...query) =>
          (await messages(...query)).filter(({ sequence }) => sequence !== lacking);
        expect([...seen, ...(await rest())]).toEqual(expected);
      });
    });
  });

  it('takes no event for removed that came while the stream was asked for the topic', async () => {
    const log = await open(newStream());
    const { last } = await append(log, ['other', 'a']);
    const api = apiOf(log);
    const message = api.message.bind(api);
    let asked = 0;
    api.message = async (query) => {
      const answer = await message(query);
      // The first answer, that there is nothing of the topic, is not believed.
      if (++asked < 2) return answer;
      api.message = message;
      await append(log, ['t', 'a']);
      return answer;
    };
    expect(await log.floor('t')).toBeLessThanOrEqual(last.position);
    expect(asked).toBe(2);
  });

  it('knows what was removed of a topic that it never met, also where a new leader lags', async () => {
    const stream = newStream();
    const { last } = await append(await open(stream), ['t', 'a']);
    await jetstream(`STREAM.PURGE.${stream}`);
    const log = await open(stream);
    const api = apiOf(log);
    const info = api.info.bind(api);
    let asked = 0;
    api.info = async (subjects) => {
      const found = await info(subjects);
      // The leader that has all says that it holds nothing. The next one is asked where the stream begins.
      if (++asked !== 2) return found;
      return { ...found, state: { ...found.state, first_seq: 1, last_seq: 1 } };
    };
    expect(await log.floor('t')).toBeGreaterThanOrEqual(last.position);
    expect(asked).toBeGreaterThan(1);
  });

  it('goes on when the newest messages were removed before it got them', async () => {
    const stream = newStream();
    const [log, late] = [await open(stream), await open(stream)];
    const state = stateOf(late);
    const { apply } = state;
    state.apply = () => {};
    const { last } = await append(log, ['t', 'a']);
    await jetstream(`STREAM.PURGE.${stream}`);
    state.apply = apply;
    await late.catchUp();
    expect(late.locate(last)).toBe('in-log');
    await expect(readAll(late, 't', last.position - 1)).rejects.toThrow(EventsRemovedError);
    const next = await append(late, ['t', 'b']);
    expect(next.last.position).toBeGreaterThan(last.position);
    await until(() => log.head === late.head, 'the same head');
    expect([log.history, late.history]).toEqual([0, 0]);
    expect(ids(await readAll(log, 't', last.position))).toEqual(['b']);
    expect(ids(await readAll(late, 't', await late.floor('t')))).toEqual(['b']);
  });

  it('learns anew what it knows of topics when messages were removed before it got them', async () => {
    const stream = newStream();
    const [log, late] = [await open(stream), await open(stream)];
    await append(log, ['t', 'a']);
    await until(() => late.head === log.head, 'the same head');
    // The late replica does not get the next messages, and they are removed.
    const state = stateOf(late);
    const apply = state.apply.bind(state);
    let isLate = true;
    state.apply = (message) => isLate || apply(message);
    const { last } = await append(log, ['t', 'b']);
    await append(log, ['t', 'c'], ['u', 'c']);
    await jetstream(`STREAM.PURGE.${stream}`, { keep: 1 });
    isLate = false;
    await append(log, ['u', 'd']);
    await until(() => late.head === log.head, 'the same head again');
    await append(late, ['t', 'e']);
    await until(() => late.head === log.head, 'the same head at the end');
    expect([log.history, late.history]).toEqual([0, 0]);
    await expect(readAll(late, 't', last.position - 1)).rejects.toThrow(EventsRemovedError);
    expect(ids(await readAll(log, 't', await log.floor('t')))).toEqual(['e']);
  });

  describe('retention', () => {
    const limited = (stream: string, limits: Partial<RetentionLimits>) =>
      open(stream, { retention: { ...KEEP_ALL, ...limits } });

    it('trims a quiet topic for which NATS did not answer at first', async () => {
      const log = await limited(newStream(), { topicMaxBytes: 2_000 });
      await append(log, ['t', 'first']);
      const api = apiOf(log);
      const message = api.message.bind(api);
      let failures = 0;
      api.message = (query) => {
        if (!('last_by_subj' in query && query.last_by_subj.endsWith('.t'))) return message(query);
        failures++;
        return Promise.reject(new UnansweredError('no'));
      };
      for (let i = 0; i < 20; i++) await append(log, ['t', 'x'.repeat(300)]);
      await until(() => failures > 0, 'a question of the janitor');
      api.message = message;
      await eventually(async () => expect((await log.heldOf('t'))!.bytes).toBeLessThan(2_500));
    });

    it('trims a quiet topic whose newest event the leader lacked at first', async () => {
      const log = await limited(newStream(), { topicMaxBytes: 2_000 });
      for (let i = 0; i < 2; i++) await append(log, ['t', 'x'.repeat(1_500)]);
      const catchesUp = isBehind(log);
      await sleep(1_500); // The janitor looks once a second.
      catchesUp();
      await eventually(async () => expect(await log.heldOf('t')).toMatchObject({ events: 1 }));
    });

    it('makes room where the quota is reached, by the removal of a topic', async () => {
      const quotaBytes = 64 * 1024;
      const log = await limited(newStream(), { quotaBytes });
      const fill = async (): Promise<never> => {
        for (;;) await append(log, ['t', 'a']);
      };
      await expect(fill()).rejects.toMatchObject({ reason: 'storage-full' });
      const { head } = log;
      await log.removeTopic('t');
      expect(await log.heldOf('t')).toBeUndefined();
      await expect(readAll(log, 't', head - 1)).rejects.toThrow(EventsRemovedError);
      await append(log, ['t', 'b']);
      expect(ids(await readAll(log, 't', await log.floor('t')))).toEqual(['b']);
    });

    it('removes events by age, and says where a topic begins then', async () => {
      const log = await limited(newStream(), { maxAge: 5_000 });
      const old = await append(log, ['t', 'a'], ['t', 'b']);
      await eventually(async () => {
        const [seen] = [await readAll(log, 't', await log.floor('t'))];
        expect(seen).toEqual([]);
        expect(await log.floor('t')).toBe(old.last.position);
      });
      await append(log, ['t', 'c']);
      expect(await log.floor('t')).toBe(old.last.position);
      expect(ids(await readAll(log, 't', old.last.position))).toEqual(['c']);
    });

    it('never skips removed events in silence, on a replica that never met the topic either', async () => {
      const stream = newStream();
      const retention = { ...KEEP_ALL, maxAge: 10_000 };
      const one = await open(stream, { retention });
      const { last } = await append(one, ['t', 'a']);
      await append(one, ['t', 'b']);
      await eventually(
        async () => expect(await one.floor('t')).toBeGreaterThan(last.position),
        60_000,
      );
      const other = await open(stream, { retention });
      expect(await other.floor('t')).toBeGreaterThan(last.position);
      await expect(readAll(other, 't', last.position)).rejects.toThrow(EventsRemovedError);
      await append(other, ['t', 'c']);
      await expect(readAll(other, 't', last.position)).rejects.toThrow(EventsRemovedError);
      const again = await open(stream, { retention });
      expect(await again.floor('t')).toBeGreaterThan(last.position);
      await expect(readAll(again, 't', last.position)).rejects.toThrow(EventsRemovedError);
      expect(ids(await readAll(again, 't', await again.floor('t')))).toEqual(['c']);
    });

    it('knows of a removed topic on every replica, also on one that starts later', async () => {
      const stream = newStream();
      const [one, other] = [await open(stream), await open(stream)];
      await append(one, ['u', 'x']);
      const { last: first } = await append(one, ['t', 'a']);
      const { last } = await append(one, ['t', 'b']);
      await other.removeTopic('t');
      await append(other, ['t', 'c'], ['u', 'y']);
      const later = await open(stream);
      for (const log of [one, other, later]) {
        await log.catchUp();
        expect(await log.floor('t')).toBe(last.position);
        expect(ids(await readAll(log, 't', last.position))).toEqual(['c']);
        expect(ids(await readAll(log, 'u'))).toEqual(['x', 'y']);
        expect(log.history).toBe(0);
      }
      await expect(readAll(later, 't', first.position)).rejects.toThrow(EventsRemovedError);
      await later.removeTopic('t');
      const last3 = await later.floor('t');
      expect(last3).toBeGreaterThan(last.position);
      const latest = await open(stream);
      await expect(readAll(latest, 't', last.position)).rejects.toThrow(EventsRemovedError);
      expect(await readAll(latest, 't', last3)).toEqual([]);
      expect(await latest.positionBeforeLast('t', 5, latest.head)).toBe(last3);
    });

    describe('keeps what comes to a topic while it is removed', () => {
      /** Removes `t`, which has an event, and calls `meanwhile` once the stream was asked for its newest one. */
      async function removeWhile(log: JetStreamLog, meanwhile: () => unknown): Promise<Position> {
        const { last } = await append(log, ['t', 'old']);
        const api = apiOf(log);
        const message = api.message.bind(api);
        api.message = async (query) => {
          const answer = await message(query);
          if ('last_by_subj' in query && query.last_by_subj.endsWith('.t')) {
            api.message = message;
            await meanwhile();
          }
          return answer;
        };
        await log.removeTopic('t');
        return last.position;
      }

      it.each(['in the commit of its marker', 'from another replica'])('%s', async (how) => {
        const stream = newStream();
        let now = 1_000;
        const clock = testClock(() => now);
        const [log, other] = [await open(stream, { clock }), await open(stream, { clock })];
        let later: Promise<unknown> | undefined;
        const floor = await removeWhile(log, async () => {
          now = 2_000;
          if (how.startsWith('in the commit')) {
            later = append(log, ['t', 'later']);
            return;
          }
          await append(other, ['t', 'later']);
          now = 3_000;
          await append(other, ['u', 'between it and the marker']);
        });
        await later;
        await other.catchUp();
        for (const one of [log, other, await open(stream, { clock })]) {
          expect(await one.floor('t')).toBe(floor);
          const seen = await readAll(one, 't', floor);
          expect(ids(seen)).toEqual(['later']);
          await expect(readAll(one, 't', floor - 1)).rejects.toThrow(EventsRemovedError);
          const [{ position }] = seen;
          const event = { position, time: 2_000 };
          expect(await one.heldOf('t')).toMatchObject({ events: 1, oldest: event, newest: event });
          expect(await one.countAfter('t', floor)).toBe(1);
          expect(await one.ageOfNext('t', position)).toBeUndefined();
        }
        // Wherever the search begins.
        for (let i = 0; i < 8; i++) {
          const before = await log.positionBefore('t', 1_500);
          expect(ids(await readAll(log, 't', before))[0]).toBe('later');
          await append(log, ['t', String(i)]);
        }
        expect(log.history).toBe(0);
      });

      it('also where it is larger than the limit of a topic', async () => {
        const stream = newStream();
        const [log, other] = [await open(stream), await open(stream)];
        const body = 'x'.repeat(5_000);
        const floor = await removeWhile(log, () =>
          other.openWriter().append(checked({ topic: 't', id: 'later', body })),
        );
        // Its janitor looks at all topics first.
        const third = await limited(stream, { topicMaxBytes: 2_000 });
        const api = apiOf(third);
        const purge = api.purge.bind(api);
        const trimmed = Promise.withResolvers<void>();
        api.purge = async (...query) => {
          await purge(...query);
          trimmed.resolve();
        };
        await within(trimmed.promise, 'a look of the janitor');
        expect(ids(await readAll(log, 't', floor))).toEqual(['later']);
      });
    });

    it("removes nothing of a topic whose marker can't be stored", async () => {
      const log = await open(newStream());
      await append(log, ['t', 'a']);
      apiOf(log).publish = () => Promise.reject(new AppendError('storage-full', 'no room'));
      await expect(log.removeTopic('t')).rejects.toThrow('no room');
      expect(ids(await readAll(log, 't'))).toEqual(['a']);
      expect(await log.floor('t')).toBe(0);
    });

    it('gives cursors where nothing is held that stay good when another replica starts', async () => {
      const stream = newStream();
      const retention = { ...KEEP_ALL, maxAge: 5_000 };
      const one = await open(stream, { retention });
      const { last } = await append(one, ['t', 'a']);
      // The floor of a topic that this replica never met is the end of what the stream has lost.
      await eventually(async () =>
        expect(await one.floor('never met')).toBeGreaterThan(last.position),
      );
      const cursor = one.cursorAt(await one.floor('never met'));
      expect(one.locate(cursor)).toBe('in-log');
      const other = await open(stream, { retention });
      expect(other.locate(cursor)).toBe('in-log');
      await one.catchUp();
      expect(one.locate(cursor)).toBe('in-log');
    });

    it('removes the oldest events of a topic over its limit, and none of other topics', async () => {
      const log = await limited(newStream(), { topicMaxBytes: 10_000 });
      const body = 'x'.repeat(1_000);
      await append(log, ['small', 'a']);
      for (let i = 0; i < 40; i++)
        await log.openWriter().append(checked({ topic: 'big', id: String(i), body }));
      await log
        .openWriter()
        .append(checked({ topic: 'huge', id: 'only', body: 'x'.repeat(50_000) }));
      await eventually(async () => {
        const seen = ids(await readAll(log, 'big', await log.floor('big')));
        expect(seen.length).toBeGreaterThan(0);
        expect(seen.length).toBeLessThanOrEqual(9);
        expect(seen).toEqual(
          Array.from({ length: seen.length }, (_, i) => String(40 - seen.length + i)),
        );
      });
      expect(ids(await readAll(log, 'small'))).toEqual(['a']);
      expect(ids(await readAll(log, 'huge'))).toEqual(['only']);
    });

    it('applies a lower limit of a topic to topics that get no new events', async () => {
      const stream = newStream();
      const before = await open(stream);
      for (let i = 0; i < 20; i++)
        await before
          .openWriter()
          .append(checked({ topic: 'quiet', id: String(i), body: 'x'.repeat(1_000) }));
      await before.close();
      const log = await limited(stream, { topicMaxBytes: 5_000 });
      await eventually(async () => expect(await log.floor('quiet')).toBeGreaterThan(0));
      expect(ids(await readAll(log, 'quiet', await log.floor('quiet'))).at(-1)).toBe('19');
    });

    it('keeps at most so many bytes of all topics', async () => {
      const log = await limited(newStream(), { maxBytes: 100_000 });
      for (let i = 0; i < 60; i++)
        await log
          .openWriter()
          .append(checked({ topic: `t${i % 3}`, id: String(i), body: 'x'.repeat(5_000) }));
      const held: number[] = [];
      for (const topic of ['t0', 't1', 't2'])
        held.push(...ids(await readAll(log, topic, await log.floor(topic))).map(Number));
      expect(held.length).toBeGreaterThan(10);
      expect(held.toSorted((a, b) => a - b)).toEqual(
        Array.from({ length: held.length }, (_, i) => 60 - held.length + i),
      );
    });

    it('refuses what is over the quota, and takes it when there is room again', async () => {
      const stream = newStream();
      const retention = { ...KEEP_ALL, topicMaxBytes: 20_000, quotaBytes: 100_000 };
      const log = await open(stream, { retention });
      const other = await open(stream, { retention });
      const send = (topic: string) =>
        log.openWriter().append(checked({ topic, id: '', body: 'x'.repeat(15_000) }));
      for (let i = 0; i < 5; i++) await send(`t${i}`);
      await expect(
        (async () => {
          for (let i = 5; i < 8; i++) await send(`t${i}`);
        })(),
      ).rejects.toMatchObject({ reason: 'storage-full' });
      const head = log.head;
      expect(await readAll(log, 't0')).toHaveLength(1);
      await jetstream(`STREAM.PURGE.${stream}`, { keep: 2 });
      await send('later');
      expect(log.head).toBeGreaterThan(head);
      await other.catchUp();
      expect(await readAll(other, 'later', await other.floor('later'))).toHaveLength(1);
    });

    it('keeps its epochs although their record is older than all that is held', async () => {
      const retention = { ...KEEP_ALL, maxAge: 4_000 };
      const ofFirst = async () => {
        const stream = newStream();
        const log = await open(stream, { retention });
        const { last } = await append(log, ['t', 'a']);
        const end = performance.now() + 9_000;
        while (performance.now() < end) await append(log, ['t', '']);
        return (await open(stream, { retention })).locate(last);
      };
      // The record is up to a second old. Where this process or NATS stands still for 3 s more, it is removed with all else.
      expect(await upToThrice(ofFirst, (found) => found === 'in-log')).toBe('in-log');
    });
  });

  describe('the stream', () => {
    it('is refused with other settings than it has', async () => {
      const stream = newStream();
      const log = await open(stream);
      await expect(open(stream, { replicas: 3 })).rejects.toThrow(SetupError);
      await expect(open(stream, { dedup: { ids: 5, milliseconds: 1_000 } })).rejects.toThrow(
        /deduplication/,
      );
      await log.close();
      // A replica that stood still for some seconds leaves a consumer, which counts for 30 s.
      const dedup = { ids: 5, milliseconds: 1_000 };
      const other = await eventually(() => open(stream, { dedup }), 60_000, 500);
      expect(other.dedupWindow.ids).toBe(5);
    });

    it('gets the limits of a later start', async () => {
      const stream = newStream();
      await (await open(stream)).close();
      await open(stream, { retention: { ...KEEP_ALL, quotaBytes: 1_000_000 } });
      interface Info {
        readonly config: Record<string, unknown>;
      }
      const { config } = await jetstream<Info>(`STREAM.INFO.${stream}`);
      expect(config).toMatchObject({ max_bytes: 1_000_000, discard: 'new' });
    });

    it('to which somebody else has written refuses starts until that is removed, and says so', async () => {
      const stream = newStream();
      const before = await open(stream);
      await append(before, ['t', 'a']);
      await before.close();
      const { config } = await jetstream<StreamInfo>(`STREAM.INFO.${stream}`);
      const connection = await server().connect();
      await connection.request(`${prefixOf(config)}t`, 'of somebody else', PATIENT);
      await connection.close();
      const refused = open(stream);
      await expect(refused).rejects.toThrow(SetupError);
      await expect(refused).rejects.toThrow('if somebody else has, remove it');
      const { state } = await jetstream<StreamInfo>(`STREAM.INFO.${stream}`);
      await jetstream(`STREAM.MSG.DELETE.${stream}`, { seq: state.last_seq });
      const log = await open(stream);
      expect(ids(await readAll(log, 't'))).toEqual(['a']);
    });

    it('of somebody else is refused', async () => {
      const name = newStream();
      await jetstream(`STREAM.CREATE.${name}`, { name, subjects: ['somebody.else'] });
      await expect(open(name)).rejects.toThrow(/not made by Feed/);
    });

    /** Notes what a stream has now. The returned function brings that back: in a new stream with the same subjects. */
    async function backUp(stream: string): Promise<() => Promise<void>> {
      const { config, state } = await jetstream<{ config: object; state: { last_seq: number } }>(
        `STREAM.INFO.${stream}`,
      );
      interface Found {
        readonly message: { readonly subject: string; readonly data: string };
      }
      const backup: Found[] = [];
      for (let seq = 1; seq <= state.last_seq; seq++)
        backup.push(await jetstream<Found>(`STREAM.MSG.GET.${stream}`, { seq }));
      return async () => {
        await jetstream(`STREAM.DELETE.${stream}`);
        await jetstream(`STREAM.CREATE.${stream}`, config);
        const connection = await server().connect();
        for (const { message } of backup)
          await connection.request(message.subject, Buffer.from(message.data, 'base64'), PATIENT);
        await connection.close();
      };
    }

    it('that was restored from an older backup ends the history, also where it has gone on since', async () => {
      const stream = newStream();
      const log = await open(stream);
      await append(log, ['t', 'kept']);
      const restore = await backUp(stream);
      const lost = await append(log, ['t', 'lost'], ['u', 'lost']);

      await restore();
      const other = await open(stream);
      // Now it has as many messages as before, and more, and nothing about them looks wrong.
      for (let i = 0; i < 5; i++) await append(other, ['new', String(i)]);
      await until(() => log.history === 1, 'another history');
      expect(log.locate(lost.last)).toBe('other-epoch');
      await append(log, ['t', 'after']);
      expect(ids(await readAll(log, 't'))).toEqual(['kept', 'after']);
      expect(ids(await readAll(log, 'new'))).toEqual(['0', '1', '2', '3', '4']);
    });

    it('that is deleted fails a read that is under way once the log has another history, which its watch is told', async () => {
      const stream = newStream();
      const before = await open(stream);
      await append(before, ['t', 'a']);
      await before.close();
      const log = await open(stream);
      const api = apiOf(log);
      const messages = api.messages.bind(api);
      const deleted = Promise.withResolvers<void>();
      api.messages = async (...query) => {
        await deleted.promise;
        return messages(...query);
      };
      const reading = log.read('t', 0, 1_000);
      await jetstream(`STREAM.DELETE.${stream}`);
      deleted.resolve();
      await expect(reading).rejects.toThrow();
      expect(log.history).toBe(1);
    });

    it.each(['its own', "another replica's"])(
      'that is restored just before a replica follows it anew shows that by the last message, %s',
      async (whose) => {
        const stream = newStream();
        const [log, writer] = [await open(stream), await open(stream)];
        await append(log, ['t', 'kept']);
        const restore = await backUp(stream);
        // The last message of the topic is at the same place in both histories, so what follows it looks right.
        await append(whose === 'its own' ? log : writer, ['t', 'lost']);
        await append(whose === 'its own' ? log : writer, ['t', 'lost, too']);
        await log.catchUp();
        expect(ids(await readAll(log, 't'))).toEqual(['kept', 'lost', 'lost, too']);
        const api = apiOf(log);
        const createConsumer = api.createConsumer.bind(api);
        api.createConsumer = async (config) => {
          api.createConsumer = createConsumer;
          // Until now, the stream was the same.
          await restore();
          const other = await open(stream);
          for (const id of ['new', 'newer']) await append(other, ['t', id]);
          return createConsumer(config);
        };
        const { replica } = log as unknown as {
          replica: { follower: { follow(): void; watchdog: NodeJS.Timeout } };
        };
        clearInterval(replica.follower.watchdog); // Where the machine stands still, it would notice first.
        replica.follower.follow();
        await until(() => log.history === 1, 'another history');
        expect(ids(await readAll(log, 't'))).toEqual(['kept', 'new', 'newer']);
      },
    );

    it.each(['before it stores', 'once it follows it anew'])(
      'that was made anew with messages of somebody else is another one for a replica, %s',
      async (when) => {
        const stream = newStream();
        const errors: string[] = [];
        const notices = {
          info: () => {},
          warn: () => {},
          error: (message: string) => void errors.push(message),
        };
        const log = await open(stream, { notices });
        await append(log, ['t', 'lost']);
        const { replica } = log as unknown as {
          replica: {
            suspect(): void;
            follower: { follow(): void; watchdog: NodeJS.Timeout };
            nextSequence: () => Promise<number>;
          };
        };
        clearInterval(replica.follower.watchdog); // It would notice first.
        const { config } = await jetstream<{ config: { subjects: string[] } }>(
          `STREAM.INFO.${stream}`,
        );
        await jetstream(`STREAM.DELETE.${stream}`);
        await jetstream(`STREAM.CREATE.${stream}`, config);
        const connection = await server().connect();
        for (let i = 0; i < 2; i++) await connection.request(config.subjects[0], '', PATIENT);
        await connection.close();
        if (when.startsWith('before')) {
          replica.suspect(); // as a reconnect does
          const refused = append(log, ['t', 'refused']);
          await expect(refused).rejects.toMatchObject({ reason: 'unavailable' });
        } else {
          replica.nextSequence = () => Promise.resolve(2); // Until now, the stream was the same.
          replica.follower.follow();
        }
        await until(() => errors.length > 0, 'a line in the log');
        expect(errors[0]).toContain('another one than this replica followed: message 2');
      },
    );

    it('that was restored takes nothing from a replica that was interrupted, though it is as long as before', async () => {
      const stream = newStream();
      const log = await open(stream);
      await append(log, ['t', 'kept']);
      const restore = await backUp(stream);
      await append(log, ['t', 'lost']);
      const { replica } = log as unknown as {
        replica: { suspect(): void; follower: { watchdog: NodeJS.Timeout } };
      };
      clearInterval(replica.follower.watchdog); // Where the machine stands still, it would notice first.
      await restore();
      // Its record of an epoch is in the place of what was lost.
      const other = await open(stream);
      // Nothing else tells of it: not what the tail brings, nor the record of the epochs, whose place is not known after a gap.
      Object.assign(stateOf(log), { compare: () => {}, epochsAt: undefined });
      replica.suspect(); // as a reconnect does
      await expect(append(log, ['t', 'refused'])).rejects.toMatchObject({ reason: 'unavailable' });
      await append(other, ['t', 'new']);
      expect(ids(await readAll(other, 't'))).toEqual(['kept', 'new']);
      await until(() => log.history === 1, 'another history');
    });

    /** Opens a replica whose stream is brought back to where it had one event, and says that it was made when it was made at first. */
    async function openRestored(...lost: readonly (readonly [string, string])[]) {
      const stream = newStream();
      const log = await open(stream);
      await append(log, ['t', 'kept']);
      const restore = await backUp(stream);
      for (const event of lost) await append(log, event);
      const { replica } = log as unknown as {
        replica: { follower: { follow(): void; watchdog: NodeJS.Timeout } };
      };
      clearInterval(replica.follower.watchdog); // It would notice first.
      const api = apiOf(log);
      const info = api.info.bind(api);
      const { created } = await info();
      api.info = async (subjects) => ({ ...(await info(subjects)), created });
      await restore();
      return { log, stream, follow: () => replica.follower.follow() };
    }

    it('that was restored and is short ends the history, also where it has as many messages once the replica follows it anew', async () => {
      // The new replica's record of the epochs is in the place of what was lost.
      const { log, follow } = await openRestored(['t', 'lost']);
      follow();
      await until(() => log.history === 1, 'another history');
      await append(log, ['t', 'after']);
      expect(ids(await readAll(log, 't'))).toEqual(['kept', 'after']);
    });

    it('that was restored ends the history, also where its last message is one that the replica has stored since', async () => {
      const storedSince = async () => {
        const { log, stream, follow } = await openRestored(['u', 'lost']);
        // Its record of an epoch is in the place of what was lost.
        await open(stream);
        Object.assign(stateOf(log), { epochsAt: undefined }); // The place of the record is not known after a gap.
        const isStored = await append(log, ['u', 'stored since']).then(
          () => true,
          () => false,
        );
        return { log, follow, isStored };
      };
      // A replica that stood still, or whose server did, looks at the stream before it stores anything.
      const { log, follow, isStored } = await upToThrice(storedSince, (found) => found.isStored);
      expect(isStored).toBe(true);
      follow();
      await until(() => log.history === 1, 'another history');
    });

    it.each(['deleted', 'made anew'])('that is %s ends the history', async (how) => {
      const stream = newStream();
      const log = await open(stream, { patience: 20_000 });
      const other = await open(stream);
      const { last } = await append(log, ['t', 'lost']);
      const changes: number[] = [];
      log.onHistoryChange(() => void changes.push(log.history));
      const writer = log.openWriter();
      await writer.append(checked({ topic: 't', id: 'first' }));
      await jetstream(`STREAM.DELETE.${stream}`);
      if (how === 'made anew') await openReplica(server(), stream).then((third) => third.close());
      // The upload that was open may not go on: its first events are gone.
      await expect(
        (async () => {
          for (let i = 0; i < 100; i++)
            await writer.append(checked({ topic: 't', id: `more${i}` }));
        })(),
      ).rejects.toMatchObject({ reason: 'unavailable' });
      await until(() => log.history === 1 && other.history === 1, 'another history on both');
      expect(changes).toEqual([1]);
      expect(log.locate(last)).toBe('other-epoch');
      expect(other.locate(last)).toBe('other-epoch');
      await append(log, ['t', 'new']);
      expect(ids(await readAll(log, 't'))).toEqual(['new']);
    });
  });
});
