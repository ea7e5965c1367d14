import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  CursorExpiredError,
  type Event,
  FeedError,
  fileCheckpoint,
  type WatchOptions,
  type WatchState,
} from '@feed-events/client';
import { randomFrom } from '../../test/support/random.js';
import { temporaryDirectory } from '../../test/support/service.js';
import { until, within } from '../../test/support/wait.js';
import { StartPosition, WatchRequest } from '../src/gen/feed/v1/feed.js';
import { FaultProxy } from './fault-proxy.js';
import {
  answerThen,
  cursorAt,
  eventFrame,
  heartbeat,
  noStatus,
  ScriptedServer,
  silence,
  status,
  watchAnswer,
} from './scripted-server.js';
import { bodies, client, numbers, Subject, take } from './service.js';

/** Notes each request that a scripted server gets. */
function requestsTo(server: ScriptedServer): WatchRequest[] {
  const requests: WatchRequest[] = [];
  server.onRequest = (bytes) => requests.push(WatchRequest.decode(bytes.subarray(5)));
  return requests;
}

describe('a watch of several topics', () => {
  test.each([
    ['orders', 'orders', []],
    [['orders'], 'orders', []],
    ['orders.*', '', ['orders.*']],
    ['>', '', ['>']],
    [['orders', 'bills.>'], '', ['orders', 'bills.>']],
  ])('of %j asks for topic "%s" and topics %j', async (topics, topic, more) => {
    const server = await ScriptedServer.start(silence);
    const requests = requestsTo(server);
    const controller = new AbortController();
    const watch = client(server.address).watch(topics, { signal: controller.signal });
    const taken = take(watch, 1);
    await until(() => requests.length > 0, 'the request');
    controller.abort();
    await taken;
    expect(requests).toMatchObject([{ topic, topics: more, skipRemoved: false }]);
  });

  test('has at least one', () => {
    expect(() => client('127.0.0.1:1').watch([])).toThrow(TypeError);
  });

  test.each([[undefined], [null], [5], [['a', null]], ['a\ud800'], [['a', '\udc00b']]])(
    '%j is none, which is said at once',
    (topics) => {
      expect(() => client('127.0.0.1:1').watch(topics as string)).toThrow(
        /^a topic is a text of whole Unicode characters/,
      );
    },
  );

  test('gets every event of them once, in the order of the log, though the server is restarted again and again', async () => {
    const subject = await Subject.start();
    const random = randomFrom(1);
    const names = ['orders', 'orders.eu.paid', 'orders.us.paid', 'orders.us.sent', 'bills', 'x.y'];
    const isWanted = (topic: string): boolean =>
      topic === 'bills' || /^orders\.[^.]+\.paid$/.test(topic);
    const producer = subject.client();
    const sent = Array.from({ length: 6_000 }, (_, i) => ({
      id: `e-${i}`,
      topic: names[random(names.length)],
      body: String(i),
    }));
    const watch = subject.client().watch(['bills', 'orders.*.paid'], { from: 'earliest' });
    const got: Event[] = [];
    const reading = (async () => {
      for await (const event of watch) {
        got.push(event);
        if (event.body === 'end') return;
      }
    })();
    reading.catch(() => {}); // looked at below
    for (let part = 0; part < 3; part++) {
      await producer.upload('x', sent.slice(part * 2_000, (part + 1) * 2_000));
      await until(() => got.length > part * 300, 'some events');
      await subject.service.kill(part === 1 ? 'SIGTERM' : 'SIGKILL');
      await subject.restart();
    }
    await producer.upload('bills', ['end']);
    await within(reading, () => `the end; ${got.length} events have come`, 30_000);
    // A commit stores its events topic by topic. Each topic keeps the order of the upload.
    for (const name of names) {
      const wanted = isWanted(name) ? sent.filter(({ topic }) => topic === name) : [];
      const found = got.filter(({ topic, body }) => topic === name && body !== 'end');
      expect(bodies(found)).toEqual(wanted.map(({ body }) => body));
    }
    const cursors = got.map(({ cursor }) => cursor);
    expect(cursors).toEqual(cursors.toSorted());
  });

  test('that a server refuses as a wrong topic says that the server may be too old', async () => {
    const server = await ScriptedServer.start(
      status(3, 'topic: it is empty', { reason: 'TOPIC_INVALID' }),
    );
    const feed = client(server.address);
    const error = await take(feed.watch(['a', 'b']), 1).catch((failure: unknown) => failure);
    expect(error).toBeInstanceOf(FeedError);
    expect(error).toMatchObject({ status: 'INVALID_ARGUMENT', reason: 'TOPIC_INVALID' });
    expect((error as FeedError).message).toContain('the server is too old');
    const single = await take(feed.watch('a'), 1).catch((failure: unknown) => failure);
    expect((single as FeedError).message).not.toContain('too old');
  });

  test.each([
    [['a', 'a'], { index: '1' }],
    [['b.>', 'b.>.c'], { index: '1' }],
    [['or*'], { index: '0' }],
  ])(
    'of %s is refused with which one is wrong, by a server that knows of several',
    async (topics, metadata) => {
      const { service } = await Subject.start();
      const feed = client(service.grpcAddress);
      const error = await take(feed.watch(topics), 1).catch((failure: unknown) => failure);
      expect(error).toMatchObject({ reason: 'TOPIC_INVALID' });
      expect((error as FeedError).metadata).toEqual(metadata);
      expect((error as FeedError).message).not.toContain('too old');
    },
  );

  test('is live once it has got to the head, not at a heartbeat from before that, after which it goes on', async () => {
    const server = await ScriptedServer.start(
      answerThen(watchAnswer({ head: 9, earliest: 0 }, heartbeat(4)), noStatus),
      watchAnswer({ head: 9, earliest: 0 }, heartbeat(6), heartbeat(9), eventFrame('a', 10)),
    );
    const requests = requestsTo(server);
    const states: string[] = [];
    const watch = client(server.address).watch('>', {
      from: 'earliest',
      onState: ({ name }) => states.push(`${name} after ${watch.cursor}`),
    });
    expect(bodies(await take(watch, 1))).toEqual(['a']);
    expect(requests.map(({ afterCursor }) => afterCursor)).toEqual([undefined, cursorAt(4)]);
    expect(states).toEqual([
      'connecting after undefined',
      'behind after undefined',
      `reconnecting after ${cursorAt(4)}`,
      `behind after ${cursorAt(4)}`,
      `live after ${cursorAt(9)}`,
      `ended after ${cursorAt(10)}`,
    ]);
  });
});

describe('a watch of several topics that begins before feed-earliest', () => {
  const from = 'earliest';

  test('skips what is removed while it is before that, and never after', async () => {
    const bounds = { head: 9, earliest: 5 };
    const server = await ScriptedServer.start(
      answerThen(watchAnswer(bounds, eventFrame('a', 2)), noStatus),
      answerThen(watchAnswer(bounds, eventFrame('b', 4)), noStatus),
      answerThen(watchAnswer(bounds, eventFrame('c', 5)), noStatus),
      watchAnswer(bounds, eventFrame('d', 7)),
    );
    const requests = requestsTo(server);
    const watch = client(server.address).watch('>', { from });
    expect(bodies(await take(watch, 4))).toEqual(['a', 'b', 'c', 'd']);
    expect(
      requests.map(({ position, afterCursor, skipRemoved }) => [
        position,
        afterCursor,
        skipRemoved,
      ]),
    ).toEqual([
      [StartPosition.START_POSITION_EARLIEST, undefined, false],
      [undefined, cursorAt(2), true],
      [undefined, cursorAt(4), true],
      [undefined, cursorAt(5), false],
    ]);
  });

  test('never skips if it is of one topic', async () => {
    const bounds = { head: 9, earliest: 5 };
    const server = await ScriptedServer.start(
      answerThen(watchAnswer(bounds, eventFrame('a', 2)), noStatus),
      watchAnswer(bounds, eventFrame('b', 4)),
    );
    const requests = requestsTo(server);
    await take(client(server.address).watch('orders', { from }), 2);
    expect(requests.map(({ skipRemoved }) => skipRemoved)).toEqual([false, false]);
  });

  test('takes a later feed-earliest for a gap, and remembers it', async () => {
    const answers = [
      answerThen(watchAnswer({ head: 9, earliest: 5 }, eventFrame('a', 2)), noStatus),
      answerThen(watchAnswer({ head: 9, earliest: 7 }, eventFrame('b', 6)), noStatus),
      watchAnswer({ head: 9, earliest: 7 }, eventFrame('c', 8)),
    ];
    const server = await ScriptedServer.start(...answers);
    const requests = requestsTo(server);
    const states: WatchState[] = [];
    const onState = (state: WatchState): void => void states.push(state);
    const options: WatchOptions = { from, expired: 'earliest', onState };
    expect(bodies(await take(client(server.address).watch('>', options), 3))).toEqual([
      'a',
      'b',
      'c',
    ]);
    expect(requests.map(({ skipRemoved }) => skipRemoved)).toEqual([false, true, true]);
    expect(states.filter(({ name }) => name === 'gap')).toEqual([
      { name: 'gap', after: cursorAt(2), earliest: cursorAt(7) },
    ]);

    const strict = await ScriptedServer.start(...answers);
    const error = await take(client(strict.address).watch('>', { from }), 3).catch(
      (failure: unknown) => failure,
    );
    expect(error).toBeInstanceOf(CursorExpiredError);
    expect(error).toMatchObject({ reason: 'CURSOR_EXPIRED', earliest: cursorAt(7) });
  });

  /**
   * A log of the topics a, b and c, in this order. b was deleted, so `feed-earliest` is after the events of a, which are too many
   * for the window of a stream.
   */
  async function logWithoutB(): Promise<Subject> {
    const subject = await Subject.start({ FEED_DURABILITY: 'none' });
    const feed = client(subject.address);
    const events = (count: number): string[] => numbers(0, count).map((n) => n.padEnd(1_000, '.'));
    for (const [topic, count] of [
      ['a', 2_000],
      ['b', 10],
      ['c', 10],
    ] as const)
      await feed.upload(topic, events(count));
    await feed.admin.deleteTopic('b');
    return subject;
  }

  const narrow = { streamWindow: 2 ** 16 };
  const all = [...numbers(0, 2_000).map((n) => `a ${n}`), ...numbers(0, 10).map((n) => `c ${n}`)];
  const named = ({ topic, body }: Event): string => `${topic} ${body.replace(/\.+$/, '')}`;

  test('goes on where it broke, with all that the server holds', async () => {
    const subject = await logWithoutB();
    const states: WatchState[] = [];
    const watch = subject.client(narrow).watch(['a', 'b', 'c'], {
      from,
      onState: (state) => void states.push(state),
    });
    const got: string[] = [];
    for await (const event of watch) {
      got.push(named(event));
      if (got.length === 100) {
        expect(watch.earliest).toBeDefined();
        await subject.service.kill('SIGKILL');
        await subject.restart();
      }
      if (got.length === all.length) break;
    }
    expect(got).toEqual(all);
    expect(watch.earliest).toBeUndefined();
    expect(states.map(({ name }) => name)).toContain('reconnecting');
    expect(states.map(({ name }) => name)).not.toContain('gap');
  });

  test('goes on so in another process, by a checkpoint in a file', async () => {
    const subject = await logWithoutB();
    const path = join(temporaryDirectory(), 'cursor');
    const options = { from, checkpoint: fileCheckpoint(path) } as const;
    const first = await take(client(subject.address, narrow).watch('>', options), 100);
    expect(readFileSync(path, 'utf8')).toMatch(/^\w{16}\n\w{16}\n$/);
    const others = await take(client(subject.address).watch('>', options), all.length - 100);
    expect([...first, ...others].map(named)).toEqual(all);
    expect(readFileSync(path, 'utf8')).toMatch(/^\w{16}\n$/);
  });

  test.each(['throw', 'earliest'] as const)(
    'does not hide what is removed while it is away: %s',
    async (expired) => {
      const subject = await logWithoutB();
      const gaps: WatchState[] = [];
      const watch = subject.client(narrow).watch('>', {
        from,
        expired,
        onState: (state) => void (state.name === 'gap' && gaps.push(state)),
      });
      const got: string[] = [];
      const reading = (async () => {
        for await (const event of watch) {
          got.push(named(event));
          if (got.length === 100) {
            subject.proxy.cutAll();
            await client(subject.address).admin.deleteTopic('c');
          }
          if (got.length === 2_000) return;
        }
      })();
      if (expired === 'throw') {
        await expect(reading).rejects.toBeInstanceOf(CursorExpiredError);
        expect(got.length).toBeLessThan(2_000);
      } else {
        await reading;
        expect(gaps).toHaveLength(1);
      }
      expect(got).toEqual(all.slice(0, got.length));
    },
  );

  test('that retention overtakes while the server restarts says so, and goes on with all that is left', async () => {
    const subject = await Subject.start({ FEED_DURABILITY: 'none' });
    const feed = client(subject.address);
    await feed.upload(
      'a',
      numbers(0, 5_000).map((n) => n.padEnd(1_000, '.')),
    );
    await feed.upload('c', numbers(0, 10));
    const gaps: (WatchState & { readonly name: 'gap' })[] = [];
    const watch = subject.client(narrow).watch(['a', 'c'], {
      from,
      expired: 'earliest',
      onState: (state) => void (state.name === 'gap' && gaps.push(state)),
    });
    const got: Event[] = [];
    /** How many events came before the first gap. */
    let before: number | undefined;
    for await (const event of watch) {
      if (gaps.length > 0) before ??= got.length;
      got.push(event);
      if (got.length === 100) {
        await subject.service.kill('SIGTERM');
        await subject.restart({ FEED_RETENTION_TOPIC_MAX_BYTES: '1MiB' });
        const again = client(subject.address);
        const held = async (): Promise<number> => (await again.admin.getTopic('a')).events;
        await until(async () => (await held()) < 4_900, 'a first removal');
        await again.upload('a', ['new']);
      }
      if (event.body === 'new') break;
    }
    const stored = [
      ...numbers(0, 5_000).map((n) => `a ${n}`),
      ...numbers(0, 10).map((n) => `c ${n}`),
      'a new',
    ];
    const places = got.map((event) => stored.indexOf(named(event)));
    expect(before).toBeLessThan(4_000);
    expect(places.slice(0, before)).toEqual([...places.slice(0, before).keys()]);
    // Retention goes on meanwhile, and may overtake it again. Whatever is missing is before the last `earliest` that it was told.
    const { earliest } = gaps.at(-1)!;
    const isHeld = (_: number, i: number): boolean => got[i].cursor > earliest;
    const first = places.find(isHeld)!;
    expect(places.filter(isHeld)).toEqual([...stored.keys()].slice(first));
    expect(places).toEqual([...new Set(places)].toSorted((a, b) => a - b));
  });

  test('of which a topic lost events goes on with what the others still hold', async () => {
    const subject = await logWithoutB();
    const feed = client(subject.address);
    const [first] = await take(feed.watch('>', { from }), 1);
    const gaps: WatchState[] = [];
    const got = await take(
      feed.watch('>', {
        from: { cursor: first.cursor },
        expired: 'earliest',
        onState: (state) => void (state.name === 'gap' && gaps.push(state)),
      }),
      all.length - 1,
    );
    expect(got.map(named)).toEqual(all.slice(1));
    expect(gaps).toMatchObject([{ name: 'gap', after: first.cursor }]);
  });
});

describe('a watch until the head', () => {
  test('ends after what was stored when it began, whatever comes meanwhile', async () => {
    const { address } = await Subject.start({ FEED_DURABILITY: 'none' });
    const feed = client(address);
    await feed.upload('a', numbers(0, 100));
    await feed.upload('b', ['other']);
    for (const topics of ['a', '>', ['a', 'c.*']]) {
      const got: string[] = [];
      for await (const { topic, body } of feed.watch(topics, { from: 'earliest', until: 'head' })) {
        if (got.length === 0) await feed.upload('b', ['later']);
        if (topic === 'a') got.push(body);
        else expect(body).toMatch(/other|later/);
      }
      expect(got).toEqual(numbers(0, 100));
    }
  });

  test('ends before an event that was stored after it began', async () => {
    const server = await ScriptedServer.start(
      watchAnswer({ head: 5, earliest: 0 }, eventFrame('a', 4), eventFrame('b', 7)),
    );
    const watch = client(server.address).watch('>', { from: 'earliest', until: 'head' });
    expect(bodies(await take(watch, 2))).toEqual(['a']);
  });

  test('ends at the end of a log that has replaced the first one before anything of that has come', async () => {
    const first = await Subject.start();
    await client(first.address).upload('other', numbers(0, 1_000));
    const second = await Subject.start();
    await client(second.address).upload('t', ['a']);
    let server = first;
    const proxy = await FaultProxy.start(() => server.address);
    const states: string[] = [];
    const watch = client(proxy.address).watch('t', {
      from: 'earliest',
      until: 'head',
      heartbeat: 60_000, // None may come from the first server.
      onState: ({ name }) => void states.push(name),
    });
    const taken = take(watch, 2);
    await until(() => states.includes('behind'), 'the headers of the first server');
    server = second;
    proxy.cutAll();
    expect(bodies(await within(taken, 'the end'))).toEqual(['a']);
    expect(states).toEqual(['connecting', 'behind', 'reconnecting', 'behind', 'live', 'ended']);
  });

  test('ends at once where nothing is to come', async () => {
    const { address } = await Subject.start({ FEED_DURABILITY: 'none' });
    const feed = client(address);
    const read = async (options: WatchOptions): Promise<string[]> => {
      const got: string[] = [];
      for await (const { body } of feed.watch('>', { ...options, until: 'head' })) got.push(body);
      return got;
    };
    expect(await read({ from: 'earliest' })).toEqual([]);
    const { lastCursor } = await feed.upload('a', ['1', '2']);
    expect(await read({ from: { cursor: lastCursor } })).toEqual([]);
    expect(await read({ from: 'live' })).toEqual([]);
    expect(await read({ from: { last: 1 } })).toEqual(['2']);
  });
});
