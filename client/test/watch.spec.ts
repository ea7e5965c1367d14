import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, get } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import {
  CursorExpiredError,
  EpochChangedError,
  type Event,
  FeedError,
  fileCheckpoint,
  ForbiddenError,
  type WatchOptions,
  type WatchState,
} from '@feed-events/client';
import { temporaryDirectory } from '../../test/support/service.js';
import { eventually, standstill, until, within } from '../../test/support/wait.js';
import {
  events,
  eventThen,
  goneAway,
  http,
  noStatus,
  reset,
  ScriptedServer,
  silence,
  status,
} from './scripted-server.js';
import { bodies, client, numbers, Subject, take } from './service.js';

describe('a watch', () => {
  test.each([
    ['earliest', 'earliest' as const, numbers(0, 10)],
    ['the newest n', { last: 3 }, numbers(7, 10)],
    ['a time', { since: new Date(Date.now() - 3_600_000) }, numbers(0, 10)],
  ])('begins with %s', async (_, from, wanted) => {
    const { address } = await Subject.start();
    const feed = client(address);
    await feed.upload('t', numbers(0, 10));
    expect(bodies(await take(feed.watch('t', { from }), wanted.length))).toEqual(wanted);
  });

  test('begins after a cursor, and with what comes from now on', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    await feed.upload('t', numbers(0, 5));
    const [, , third] = await take(feed.watch('t', { from: 'earliest' }), 3);
    expect(bodies(await take(feed.watch('t', { from: { cursor: third.cursor } }), 2))).toEqual([
      '3',
      '4',
    ]);
    const states: string[] = [];
    const live = take(feed.watch('t', { onState: ({ name }) => states.push(name) }), 1);
    await until(() => states.includes('live'), 'a live watch');
    await feed.upload('t', ['new']);
    expect(bodies(await live)).toEqual(['new']);
    expect(states).toEqual(['connecting', 'live', 'ended']);
  });

  test('goes on after each cut where it was, and says so', async () => {
    const subject = await Subject.start();
    const feed = subject.client();
    await feed.upload('t', numbers(0, 1_000));
    const states: WatchState[] = [];
    const watch = feed.watch('t', { from: 'earliest', onState: (state) => states.push(state) });
    const got: string[] = [];
    let upload: Promise<unknown> | undefined;
    for await (const { body } of watch) {
      got.push(body);
      if (got.length % 250 === 0) subject.proxy.cutAll();
      if (got.length === 990) upload = feed.upload('t', numbers(1_000, 1_200));
      if (got.length === 1_200) break;
    }
    await upload;
    expect(got).toEqual(numbers(0, 1_200));
    expect(states[0]).toEqual({ name: 'connecting' });
    const breaks = states.filter((state) => state.name === 'reconnecting');
    expect(breaks.length).toBeGreaterThanOrEqual(1);
    // An event came before each break, so each attempt is the first, and is made at once.
    expect(breaks[0]).toMatchObject({ attempt: 1, wait: 0, reason: { status: 'UNAVAILABLE' } });
    expect(states.at(-1)).toEqual({ name: 'ended' });
  });

  test('that is live and breaks before its first event loses nothing from its opening on', async () => {
    const subject = await Subject.start();
    const feed = subject.client();
    await feed.upload('t', ['before']);
    let isLive = false;
    const watch = feed.watch('t', { onState: ({ name }) => (isLive ||= name === 'live') });
    const taken = take(watch, 2);
    await until(() => isLive, 'a live watch');
    await subject.service.kill('SIGKILL');
    await subject.restart();
    await client(subject.address).upload('t', ['a', 'b']);
    expect(bodies(await taken)).toEqual(['a', 'b']);
  });

  test('moves its cursor when the next event is asked for, not before', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    await feed.upload('t', numbers(0, 3));
    const watch = feed.watch('t', { from: 'earliest' });
    const iterator = watch[Symbol.asyncIterator]();
    const first = await iterator.next();
    expect(watch.cursor).toBeUndefined();
    const second = await iterator.next();
    expect(watch.cursor).toBe(first.value!.cursor);
    watch.accept();
    expect(watch.cursor).toBe(second.value!.cursor);
    await iterator.return!();
    expect(watch.cursor).toBe(second.value!.cursor);
  });

  test('moves its cursor with heartbeats, so that it does not expire on a quiet topic', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    const watch = feed.watch('quiet', { heartbeat: 1_000 });
    const taken = take(watch, 1);
    await until(() => watch.cursor !== undefined, 'a cursor');
    const before = watch.cursor!;
    await feed.upload('other', ['x']);
    await until(() => watch.cursor! > before, 'a newer cursor');
    await feed.upload('quiet', ['end']);
    await taken;
  });

  test('that hears nothing, not even heartbeats, is given up and goes on over another connection', async () => {
    const subject = await Subject.start();
    const feed = subject.client({ keepalive: { time: Infinity, timeout: Infinity } }); // It would find the dead connection later.
    await feed.upload('t', ['a']);
    const reasons: FeedError[] = [];
    const watch = feed.watch('t', {
      from: 'earliest',
      heartbeat: 1_000,
      onState: (state) => state.name === 'reconnecting' && reasons.push(state.reason),
    });
    const got: string[] = [];
    for await (const { body } of watch) {
      got.push(body);
      if (body === 'a') {
        subject.proxy.freezeAll();
        await client(subject.address).upload('t', ['b']);
      } else break;
    }
    expect(got).toEqual(['a', 'b']);
    expect(reasons[0]).toMatchObject({ status: 'UNAVAILABLE' });
  });

  test('does not take its own consumer for a silent server', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    await feed.upload('t', numbers(0, 50_000));
    const states: string[] = [];
    const watch = feed.watch('t', {
      from: 'earliest',
      heartbeat: 4_000, // It breaks after 10 s without any.
      onState: ({ name }) => states.push(name),
    });
    let count = 0;
    for await (const _ of watch) {
      if (++count === 10) await new Promise((resolve) => setTimeout(resolve, 11_000));
      if (count === 50_000) break;
    }
    expect(states).not.toContain('reconnecting');
  });

  test.each([
    ['a reset with CANCEL that nobody asked for', reset('NGHTTP2_CANCEL')],
    ['a refused stream', reset('NGHTTP2_REFUSED_STREAM')],
    ['a reset of a stream that was read too slowly', reset('NGHTTP2_ENHANCE_YOUR_CALM')],
    ['an internal error of HTTP/2', reset('NGHTTP2_INTERNAL_ERROR')],
    ['an end without a status', noStatus],
    ['UNAVAILABLE, DRAINING', status(14, 'the server is shutting down', { reason: 'DRAINING' })],
    ['UNAVAILABLE, MOVED', status(14, 'go on over a new connection', { reason: 'MOVED' })],
    ['CANCELLED', status(1)],
    ['UNKNOWN', status(2, 'proxy')],
    ['TOKEN_EXPIRED', status(16, 'expired', { reason: 'TOKEN_EXPIRED' })],
    ['OK, though a watch has no end', status(0)],
    ['a connection that closes', goneAway],
  ])('survives %s, before an event and after one', async (_, end) => {
    const server = await ScriptedServer.start(end, eventThen('a', end), events('b'));
    const feed = client(server.address);
    expect(bodies(await take(feed.watch('t', { from: 'earliest' }), 2))).toEqual(['a', 'b']);
    expect(server.calls).toHaveLength(3);
  });

  test('survives a proxy that answers 503', async () => {
    const server = await ScriptedServer.start(http(503), events('a'));
    expect(bodies(await take(client(server.address).watch('t'), 1))).toEqual(['a']);
  });

  test.each([
    ['INVALID_ARGUMENT', status(3, 'bad', { reason: 'TOPIC_INVALID' }), FeedError, 'TOPIC_INVALID'],
    [
      'PERMISSION_DENIED',
      status(7, 'no', { reason: 'TOPIC_FORBIDDEN' }),
      ForbiddenError,
      'TOPIC_FORBIDDEN',
    ],
    ['UNAUTHENTICATED', status(16, 'who?'), ForbiddenError, undefined],
    ['UNIMPLEMENTED', status(12, 'what?'), FeedError, undefined],
    [
      'an operator',
      status(10, 'enough', { reason: 'ENDED_BY_OPERATOR' }),
      FeedError,
      'ENDED_BY_OPERATOR',
    ],
    ['HTTP 404', http(404), FeedError, undefined],
  ])('gives up at %s', async (_, answer, type, reason) => {
    const server = await ScriptedServer.start(answer);
    const failure = await take(client(server.address).watch('t'), 1).catch(
      (error: unknown) => error,
    );
    expect(failure).toBeInstanceOf(type);
    expect((failure as FeedError).reason).toBe(reason);
    expect(server.calls).toHaveLength(1);
  });

  test('waits longer with each failure, at random, and begins anew after an event', async () => {
    const busy = status(14);
    const server = await ScriptedServer.start(
      busy,
      busy,
      busy,
      eventThen('a', busy),
      busy,
      events('b'),
    );
    const waits: number[] = [];
    const feed = client(server.address, { retry: { initial: 40, max: 100 } });
    await take(
      feed.watch('t', {
        onState: (state) => state.name === 'reconnecting' && waits.push(state.wait),
      }),
      2,
    );
    expect(waits).toHaveLength(5);
    const [first, second, third, afterEvent, last] = waits;
    expect([first, afterEvent]).toEqual([0, 0]);
    for (const [wait, longest] of [
      [second, 40],
      [third, 80],
      [last, 40],
    ]) {
      expect(wait).toBeGreaterThanOrEqual(longest / 2);
      expect(wait).toBeLessThanOrEqual(longest);
    }
  });

  test('ends quietly when its signal fires: before it connects, while it waits, and between events', async () => {
    const server = await ScriptedServer.start(silence, events('a'));
    const feed = client(server.address);
    expect(await take(feed.watch('t', { signal: AbortSignal.abort() }), 1)).toEqual([]);
    const ended = new AbortController();
    const waiting = take(feed.watch('t', { signal: ended.signal }), 1);
    await until(() => server.calls.length === 1, 'the call');
    ended.abort();
    expect(await waiting).toEqual([]);
    const controller = new AbortController();
    const got: string[] = [];
    for await (const { body } of feed.watch('t', { signal: controller.signal })) {
      got.push(body);
      controller.abort();
    }
    expect(got).toEqual(['a']);
    expect(server.calls).toHaveLength(2);
  });

  /** Opens a watch that waits for its first event. */
  async function waitingWatch() {
    const server = await ScriptedServer.start(events());
    const states: string[] = [];
    const watch = client(server.address).watch('t', {
      onState: ({ name }) => void states.push(name),
    });
    const iterator = watch[Symbol.asyncIterator]();
    const next = iterator.next();
    await until(() => states.includes('live'), 'the watch');
    return { iterator, next, states };
  }

  test('ends when its iterator returns, also while the next event is waited for', async () => {
    const { iterator, next, states } = await waitingWatch();
    expect(await within(iterator.return!(), 'return()')).toMatchObject({ done: true });
    expect(await next).toMatchObject({ done: true });
    expect(states.at(-1)).toBe('ended');
  });

  test('ends with an error that is thrown into its iteration, also while the next event is waited for', async () => {
    const { iterator, next, states } = await waitingWatch();
    const error = new Error('mine');
    await expect(within(iterator.throw!(error), 'throw()')).rejects.toBe(error);
    expect(await next).toMatchObject({ done: true });
    expect(states.at(-1)).toBe('ended');
  });

  test('of a quiet topic ends when an HTTP caller that it is piped to goes away', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    const pipelines: Promise<void>[] = [];
    const server = createServer((_, response) => {
      response.flushHeaders();
      const text = new Transform({
        writableObjectMode: true,
        transform: ({ body }: Event, _encoding, done) => done(null, body),
      });
      // When the response is destroyed, this destroys the Readable with an error, which is thrown into the iteration.
      pipelines.push(pipeline(Readable.from(feed.watch('quiet')), text, response));
    });
    onTestFinished(() => {
      server.closeAllConnections();
      server.close();
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const caller = get({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
    caller.on('error', () => {});
    await once(caller, 'response');
    const isOpen = async (): Promise<boolean> => {
      for await (const { method } of feed.admin.listStreams())
        if (method.endsWith('/Watch')) return true;
      return false;
    };
    await until(isOpen, 'the watch');
    caller.destroy();
    await expect(within(pipelines[0], 'the end of the pipeline')).rejects.toMatchObject({
      code: 'ERR_STREAM_PREMATURE_CLOSE',
    });
    await until(async () => !(await isOpen()), 'the end of the watch at the server');
  });

  test('asks for its token and metadata with each call', async () => {
    const server = await ScriptedServer.start(status(14), events('a'));
    let n = 0;
    const feed = client(server.address, {
      token: async () => `token-${++n}`,
      metadata: () => ({ 'x-tenant': `tenant-${n}` }),
    });
    await take(feed.watch('t'), 1);
    expect(server.calls.map((headers) => [headers.authorization, headers['x-tenant']])).toEqual([
      ['Bearer token-1', 'tenant-0'],
      ['Bearer token-2', 'tenant-1'],
    ]);
    expect(server.calls[0]['grpc-timeout']).toBeUndefined();
  });

  test('takes little ahead of a consumer that stops, and other watches of the connection go on', async () => {
    const { proxy, address } = await Subject.start();
    await client(address).upload(
      't',
      Array.from({ length: 20_000 }, () => 'x'.repeat(1_000)),
    );
    const feed = client(proxy.address, { streamWindow: 256 * 1024 });
    const slow = feed.watch('t', { from: 'earliest' })[Symbol.asyncIterator]();
    await slow.next();
    // 20 MB are to be had: the stream's window, and what the sockets and the proxy hold, are far less.
    expect(await standstill(() => proxy.toClientBytes)).toBeLessThan(1_500_000);
    await take(feed.watch('t', { from: 'earliest' }), 20_000);
    expect(proxy.connections).toBe(1);
    await slow.return!();
  });

  test('is typed: an expired cursor ends it, or is passed over where the gap is wanted', async () => {
    const { address } = await Subject.start({ FEED_RETENTION_MAX_BYTES: '1MiB' });
    const feed = client(address);
    await feed.upload('t', ['first']);
    const [first] = await take(feed.watch('t', { from: 'earliest' }), 1);
    await feed.upload(
      't',
      Array.from({ length: 4_000 }, () => 'x'.repeat(1_000)),
    );
    const from = { cursor: first.cursor };
    await eventually(async () => {
      const failure: unknown = await take(feed.watch('t', { from }), 4_000).catch(
        (error: unknown) => error,
      );
      expect(failure).toBeInstanceOf(CursorExpiredError);
      expect((failure as CursorExpiredError).earliest).not.toBe('');
    });
    const gaps: WatchState[] = [];
    const onState = (state: WatchState): void => void (state.name === 'gap' && gaps.push(state));
    await take(feed.watch('t', { from, expired: 'earliest', onState }), 1);
    // Retention may go on between the refusal and the next call: then there is another gap.
    const earliest = expect.any(String) as string;
    expect(gaps[0]).toEqual({ name: 'gap', after: first.cursor, earliest });
  });

  test('is typed: a log that was lost ends it', async () => {
    const subject = await Subject.start();
    const feed = subject.client();
    await feed.upload('t', ['a']);
    const [{ cursor }] = await take(feed.watch('t', { from: 'earliest' }), 1);
    await subject.service.kill('SIGKILL');
    await subject.restart({ FEED_DATA_DIR: temporaryDirectory() });
    const failure = take(feed.watch('t', { from: { cursor } }), 1);
    await expect(failure).rejects.toBeInstanceOf(EpochChangedError);
  });

  test('can be iterated over once, and refuses heartbeats that the server would refuse', async () => {
    const feed = client('127.0.0.1:1');
    const watch = feed.watch('t');
    watch[Symbol.asyncIterator]();
    expect(() => watch[Symbol.asyncIterator]()).toThrow('once');
    expect(() => feed.watch('t', { heartbeat: 500 })).toThrow('1,000');
  });
});

describe('a checkpoint', () => {
  test('in a file carries a watch over the end of its process', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    const path = join(temporaryDirectory(), 'cursor');
    await feed.upload('t', numbers(0, 10));
    const options = { from: 'earliest', checkpoint: fileCheckpoint(path) } as const;
    expect(bodies(await take(feed.watch('t', options), 4))).toEqual(numbers(0, 4));
    expect(bodies(await take(feed.watch('t', options), 6))).toEqual(numbers(4, 10));
    expect((await readFile(path, 'utf8')).trim()).toMatch(/^\w{16}$/);
  });

  test('is saved after so many events, or so long after an event, and at the end, one at a time', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    await feed.upload('t', numbers(0, 25));
    const saved: string[] = [];
    let saving = 0;
    const save = vi.fn(async (cursor: string) => {
      expect(++saving).toBe(1);
      await new Promise((resolve) => setTimeout(resolve, 5));
      saved.push(cursor);
      saving--;
    });
    const checkpoint = { load: async () => undefined, save };
    const watch = feed.watch('t', {
      from: 'earliest',
      checkpoint,
      checkpointEvery: { events: 10, time: 60_000 },
    });
    const cursors: string[] = [];
    for await (const { cursor } of watch) {
      cursors.push(cursor);
      await new Promise((resolve) => setTimeout(resolve, 1)); // so that a save is done before the next is due
      if (cursors.length === 10)
        await until(() => saved.length === 0, 'no save before the tenth is handled');
      if (cursors.length === 20) await until(() => saved.length > 0, 'a save after the tenth');
      if (cursors.length === 25) break;
    }
    expect(saved.at(-1)).toBe(cursors[23]); // the 25th was not asked past
    expect(save.mock.calls.length).toBeLessThanOrEqual(5);
  });

  test('that is due by time is saved while the watch waits for events', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    await feed.upload('t', ['a']);
    const saved: string[] = [];
    const checkpoint = {
      load: async () => undefined,
      save: async (cursor: string) => void saved.push(cursor),
    };
    const watch = feed.watch('t', { from: 'earliest', checkpoint, checkpointEvery: { time: 50 } });
    const taken = take(watch, 2);
    await until(() => saved.length > 0, 'a save');
    await feed.upload('t', ['b']);
    await taken;
  });

  test('that can not be saved ends the watch with its error', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    await feed.upload('t', numbers(0, 300));
    const checkpoint = {
      load: async () => undefined,
      save: () => Promise.reject(new Error('no room')),
    };
    const watch = feed.watch('t', { from: 'earliest', checkpoint, checkpointEvery: { events: 1 } });
    await expect(within(take(watch, 300), 'the end')).rejects.toThrow('no room');
  });
});

test.each([
  [{ from: { since: new Date(NaN) } }, TypeError, 'from.since is a valid Date'],
  [{ from: { since: '2026-01-01' } }, TypeError, 'from.since is a valid Date'],
  [{ from: { last: -1 } }, RangeError, 'from.last is a whole number from 0 to 4,294,967,295'],
  [{ from: { last: 1.5 } }, RangeError, 'from.last is'],
  [{ from: { last: 2 ** 32 } }, RangeError, 'from.last is'],
  [{ from: { cursor: 7 } }, TypeError, 'from.cursor is a text'],
  [{ from: 'yesterday' }, TypeError, "from is 'live', 'earliest'"],
  [{ from: null }, TypeError, "from is 'live', 'earliest'"],
  [{ until: 'x' }, TypeError, "until is 'head'"],
  [{ expired: 'x' }, TypeError, "expired is 'throw' or 'earliest'"],
] as const)('the options %j are refused at once, by name', (options, type, message) => {
  const watch = () => client('127.0.0.1:1').watch('t', options as unknown as WatchOptions);
  expect(watch).toThrow(type);
  expect(watch).toThrow(message);
});

test('a time before 1970 is one before all events', async () => {
  const { address } = await Subject.start();
  const feed = client(address);
  await feed.upload('t', ['a']);
  expect(bodies(await take(feed.watch('t', { from: { since: new Date(-1_500) } }), 1))).toEqual([
    'a',
  ]);
});
