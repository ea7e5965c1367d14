import { setTimeout as sleep } from 'node:timers/promises';
import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { gzipSync } from 'node:zlib';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Event, UploadResult } from '../../src/gen/feed/v1/feed.js';
import { codec, errorInfo, type FeedClient, take, upload } from '../support/client.js';
import { ANYONE } from '../../src/feed/caller.js';
import { draining, endedByOperator, type FeedError } from '../../src/feed/errors.js';
import { UploadRates } from '../../src/feed/upload-rates.js';
import { type UploadCall, Uploads } from '../../src/feed/upload.js';
import type { EngineCommit } from '../../src/repository/engine.js';
import { EventLog } from '../../src/repository/event-log.js';
import { AppendError } from '../../src/repository/event-repository.js';
import { MemoryEngine } from '../../src/repository/memory/memory-engine.js';
import { TooManyTopicsError } from '../../src/repository/topic-limit.js';
import { eventFrames } from '../support/frames.js';
import { RawClient } from '../support/raw-client.js';
import { ENGINES, engineForTests } from '../support/nats.js';
import { runService } from '../support/service.js';
import { until, within } from '../support/wait.js';

const event = (id: string, more: Partial<Event> = {}): Partial<Event> => ({
  id,
  topic: 'orders',
  ...more,
});

/** Opens an upload that sends nothing, and resolves once its response headers have come. */
async function open(client: FeedClient) {
  const ended = Promise.withResolvers<UploadResult>();
  const call = client.UploadEvents((error, result) =>
    error ? ended.reject(error) : ended.resolve(result),
  );
  const headers = new Promise<{ window: unknown; ids: unknown }>((resolve) =>
    call.on('metadata', (metadata: Metadata) => {
      const [[window], [ids]] = ['feed-dedup-window', 'feed-dedup-ids'].map((name) =>
        metadata.get(name),
      );
      resolve({ window, ids });
    }),
  );
  const first = await within(Promise.race([headers, ended.promise]), 'the headers');
  return { call, headers: first, result: ended.promise };
}

const { settings: settingsOf } = engineForTests();

describe.each(ENGINES)('UploadEvents (%s)', (engine) => {
  const durability = engine === 'lmdb' ? 2 : 1;
  const run = (settings = {}) => runService({ ...settingsOf(engine), ...settings });

  test("answers with the number of stored events, the last one's cursor, and how durable they are", async () => {
    const { client } = await run();
    const { result } = await upload(client, [event('a'), event('b'), event('c')]);
    const [, , last] = await take(client, { topic: 'orders', position: 1 }, 3);
    expect(result).toEqual({ received: 3, duplicates: 0, lastCursor: last.cursor, durability });
  });

  test('an upload has its headers at once: the deduplication window in milliseconds and in ids', async () => {
    const { client } = await run({ FEED_DEDUP_WINDOW: '90s', FEED_DEDUP_IDS: '5000' });
    const { call, headers, result } = await open(client);
    expect(headers).toEqual({ window: '90000', ids: '5000' });
    call.write(event('a'));
    call.end();
    expect(await result).toMatchObject({ received: 1, duplicates: 0 });
  });

  test.each([{ FEED_DEDUP_WINDOW: '0s' }, { FEED_DEDUP_IDS: '0' }])(
    'with %j, the headers say that no id is remembered, and none is',
    async (settings) => {
      const { client } = await run(settings);
      await upload(client, [event('a')]);
      const { call, headers, result } = await open(client);
      expect(headers).toEqual({ window: '0', ids: '0' });
      call.write(event('a'));
      call.end();
      expect(await result).toMatchObject({ received: 1, duplicates: 0 });
    },
  );

  test('an upload whose first event is refused has its headers and its status', async () => {
    const { client } = await run();
    const { call, headers, result } = await open(client);
    expect(headers).toEqual({ window: '120000', ids: '1000000' });
    call.write(event('a', { topic: '' }));
    const error = (await result.catch((thrown: unknown) => thrown)) as ServiceError;
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(errorInfo(error.metadata)).toMatchObject({
      reason: 'EVENT_INVALID',
      metadata: { index: '0', received: '0' },
    });
  });

  test('cursors compare as text in the order of the log, whatever their topics, while the epoch is the same', async () => {
    const { client } = await run();
    const cursors: string[] = [];
    for (let i = 0; i < 40; i++) {
      const { result } = await upload(client, [event(String(i), { topic: `t${i % 3}` })]);
      cursors.push(result!.lastCursor);
    }
    expect(new Set(cursors.map((cursor) => cursor.slice(-6))).size).toBe(1);
    expect(cursors.toSorted()).toEqual(cursors);
  });

  test('acknowledges an upload of no events', async () => {
    const { client } = await run();
    expect((await upload(client, [])).result).toMatchObject({ received: 0, lastCursor: '' });
  });

  test('gives an event without an id or time its own, and keeps what it has', async () => {
    const { client } = await run();
    const at = { seconds: 1_000_000_000, nanos: 123_456_789 };
    await upload(client, [
      { topic: 'orders', body: 'x' },
      event('mine', { at, cursor: 'not mine' }),
    ]);
    const [made, kept] = await take(client, { topic: 'orders', position: 1 }, 2);
    expect(made.id).toMatch(/^[0-9a-f-]{36}$/);
    expect(Math.abs(made.at!.seconds * 1000 - Date.now())).toBeLessThan(10_000);
    expect(kept).toMatchObject({ id: 'mine', at });
    expect(kept.cursor).not.toBe('not mine');
  });

  test('keeps the order of each topic in an upload to several', async () => {
    const { client } = await run();
    const events = Array.from({ length: 300 }, (_, i) => event(String(i), { topic: `t${i % 3}` }));
    expect((await upload(client, events)).result?.received).toBe(300);
    for (const topic of ['t0', 't1', 't2']) {
      const seen = await take(client, { topic, position: 1 }, 100);
      expect(seen.map(({ id }) => id)).toEqual(
        events.filter((e) => e.topic === topic).map(({ id }) => id),
      );
    }
  });

  test.each<[string, Partial<Event>]>([
    ['no topic', { topic: '' }],
    ['an invalid topic', { topic: 'a..b' }],
    ['a time out of range', { at: { seconds: 1e12, nanos: 0 } }],
  ])('ends at an event with %s: those before it are stored, and counted', async (_what, bad) => {
    const { client } = await run();
    const { error } = await upload(client, [event('a'), event('b'), event('bad', bad), event('c')]);
    expect(error?.code).toBe(status.INVALID_ARGUMENT);
    expect(errorInfo(error!.metadata)).toMatchObject({
      reason: 'EVENT_INVALID',
      metadata: { index: '2', received: '2' },
    });
    expect(await take(client, { topic: 'orders', position: 1 }, 2)).toHaveLength(2);
  });

  test('refuses an event over FEED_MAX_EVENT_BYTES by its length alone', async () => {
    const { client, grpcAddress } = await run({ FEED_MAX_EVENT_BYTES: '2KiB' });
    const { error } = await upload(client, [event('a'), event('b', { body: 'x'.repeat(3000) })]);
    expect(error?.code).toBe(status.INVALID_ARGUMENT);
    expect(errorInfo(error!.metadata)).toMatchObject({
      reason: 'EVENT_INVALID',
      metadata: { index: '1', received: '1' },
    });
    const raw = await RawClient.connect(grpcAddress);
    const call = raw.open('UploadEvents').drop();
    call.stream.write(Buffer.from([0, 0xff, 0xff, 0xff, 0xff]));
    expect((await call.trailers)?.['grpc-status']).toBe(String(status.INVALID_ARGUMENT));
    raw.close();
  });

  test('takes what a watch has sent, with its cursor, and no chat message that is as large', async () => {
    const LIMIT = 2_048;
    const { client, grpcAddress } = await run({ FEED_MAX_EVENT_BYTES: '2KiB' });
    /** Returns an event of so many bytes. */
    const sized = (bytes: number, fields: Partial<Event>): Partial<Event> => {
      const bare = codec.event.serialize({ topic: 'orders', ...fields, body: 'x'.repeat(200) });
      const body = 'x'.repeat(200 + bytes - bare.length);
      return { topic: 'orders', ...fields, body };
    };
    const at = { seconds: 1_700_000_000, nanos: 5 };
    // The server gives these an id of 38 bytes and a time of up to 14.
    const lacking = sized(LIMIT - 38 - 14, {});
    const events = [sized(LIMIT, { id: 'a', at }), lacking, lacking];
    expect((await upload(client, events)).result?.received).toBe(3);
    const sent = await take(client, { topic: 'orders', position: 1 }, 3);
    expect(codec.event.serialize(sent[0]).length).toBe(LIMIT + 18);
    const other = await run({ FEED_MAX_EVENT_BYTES: '2KiB' });
    expect((await upload(other.client, sent)).result?.received).toBe(3);
    const without = ({ cursor: _cursor, ...rest }: Event) => rest;
    const copied = await take(other.client, { topic: 'orders', position: 1 }, 3);
    expect(copied.map(without)).toEqual(sent.map(without));

    const over = await upload(client, [sized(LIMIT + 1, { id: 'b', at })]);
    expect(over.error?.details).toContain(
      'it has 2049 bytes as it is stored, over the limit of 2048',
    );
    const raw = await RawClient.connect(grpcAddress);
    const announced = raw.open('UploadEvents').drop();
    announced.stream.write(Buffer.from([0, 0, 0, 0x08, 43]));
    const trailers = await announced.trailers;
    expect(decodeURIComponent(String(trailers?.['grpc-message']))).toContain(
      'a message of 2091 bytes is over the limit of 2048',
    );
    const deflated = raw.open('UploadEvents', { 'grpc-encoding': 'gzip' }).drop();
    deflated.compressed(gzipSync(Buffer.alloc(3_000)));
    expect(decodeURIComponent(String((await deflated.trailers)?.['grpc-message']))).toContain(
      'a message has more than 2090 bytes once it is decompressed, over the limit of 2048',
    );
    const chat = raw.open('Chat').drop();
    chat.stream.write(Buffer.from([0, 0, 0, 0x08, 1]));
    expect((await chat.trailers)?.['grpc-status']).toBe(String(status.INVALID_ARGUMENT));
    raw.close();
  });

  test('refuses bytes that are no event, and an event that is cut short', async () => {
    const { grpcAddress, client } = await run();
    for (const bad of [Buffer.from([0xff, 0xff, 0xff]), Buffer.from([0x0a, 0x05])]) {
      const raw = await RawClient.connect(grpcAddress);
      const call = raw.open('UploadEvents').drop();
      call.send(codec.event.serialize(event(`good before ${bad.length}`))).send(bad);
      expect((await call.trailers)?.['grpc-status']).toBe(String(status.INVALID_ARGUMENT));
      raw.close();
    }
    expect(await take(client, { topic: 'orders', position: 1 }, 2)).toHaveLength(2);
  });

  test('stores nothing twice when events are uploaded again, and counts them as duplicates', async () => {
    const { client } = await run();
    const events = Array.from({ length: 100 }, (_, i) => event(String(i)));
    const { result } = await upload(client, events.slice(0, 60));
    const again = (await upload(client, events)).result!;
    expect(again).toMatchObject({ received: 100, duplicates: 60 });
    expect((await upload(client, events)).result).toEqual({ ...again, duplicates: 100 });
    expect(result!.lastCursor < again.lastCursor).toBe(true);
    const seen = await take(client, { topic: 'orders', position: 1 }, 100);
    expect(seen.map(({ id }) => id)).toEqual(events.map(({ id }) => id));
  });

  test('an upload that is cancelled keeps what was stored, and is not acknowledged', async () => {
    const { client, log } = await run();
    let answered: unknown;
    const call = client.UploadEvents((error) => (answered = error));
    call.write(event('a'));
    expect(await take(client, { topic: 'orders', position: 1 }, 1)).toHaveLength(1);
    call.cancel();
    await until(() => answered !== undefined, 'the end');
    expect(answered).toMatchObject({ code: status.CANCELLED });
    await until(
      () =>
        log.some(
          (line) =>
            line.method === '/feed.v1.FeedService/UploadEvents' && line.status === 'CANCELLED',
        ),
      'the log line',
    );
    expect(await take(client, { topic: 'orders', position: 1 }, 1)).toHaveLength(1);
  });

  test('an upload that a shutdown ends is told how many of its events are stored', async () => {
    const { client, app } = await run({ FEED_DRAIN_TIMEOUT: '100ms' });
    const answered = Promise.withResolvers<Awaited<ReturnType<typeof upload>>['error']>();
    const call = client.UploadEvents((error) => answered.resolve(error ?? undefined));
    call.write(event('a'));
    call.write(event('b'));
    await take(client, { topic: 'orders', position: 1 }, 2);
    await app.close();
    const error = await answered.promise;
    expect(error?.code).toBe(status.UNAVAILABLE);
    expect(errorInfo(error!.metadata)).toMatchObject({
      reason: 'DRAINING',
      metadata: { received: '2' },
    });
  });

  test('watchers see the events of an upload in its order, up to its last cursor', async () => {
    const { client } = await run();
    const events = Array.from({ length: 2000 }, (_, i) => event(String(i)));
    const watching = take(client, { topic: 'orders', position: 1 }, 2000);
    const { result } = await upload(client, events);
    const seen = await watching;
    expect(seen.map(({ id }) => id)).toEqual(events.map(({ id }) => id));
    expect(seen.at(-1)!.cursor).toBe(result!.lastCursor);
    expect(seen.map(({ cursor }) => cursor)).toEqual(seen.map(({ cursor }) => cursor).toSorted());
  });
});

test('a message that does not decompress ends an upload as a bad event does: those before it are stored', async () => {
  const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
  const raw = await RawClient.connect(grpcAddress);
  const call = raw.open('UploadEvents', { 'grpc-encoding': 'gzip' }).drop();
  for (const id of ['a', 'b']) call.compressed(gzipSync(codec.event.serialize(event(id))));
  call.compressed(Buffer.from('not gzip'));
  const trailers = (await call.trailers)!;
  expect(trailers['grpc-status']).toBe(String(status.INVALID_ARGUMENT));
  const details = Buffer.from(String(trailers['grpc-status-details-bin']), 'base64').toString(
    'latin1',
  );
  expect(details).toMatch(/EVENT_INVALID[^]*index[^]*2[^]*received[^]*2/);
  raw.close();
});

test.each([
  ['was not announced', 'identity', status.INTERNAL, 'COMPRESSION_INVALID'],
  ['is not supported', 'snappy', status.UNIMPLEMENTED, 'COMPRESSION_UNSUPPORTED'],
])(
  'a message whose compression %s ends an upload, which says what is stored, and is no fault of the service',
  async (_what, encoding, code, reason) => {
    const { grpcAddress, client, log } = await runService({ FEED_ENGINE: 'memory' });
    const raw = await RawClient.connect(grpcAddress);
    onTestFinished(() => raw.close());
    const call = raw.open('UploadEvents', { 'grpc-encoding': encoding }).drop();
    for (const id of ['a', 'b']) call.send(codec.event.serialize(event(id)));
    call.compressed(codec.event.serialize(event('c')));
    const trailers = Metadata.fromHttp2Headers((await within(call.trailers, 'the end'))!);
    expect(trailers.get('grpc-status')).toEqual([String(code)]);
    expect(errorInfo(trailers)).toMatchObject({ reason, metadata: { received: '2' } });
    expect(await take(client, { topic: 'orders', position: 1 }, 2)).toHaveLength(2);
    const [INFO, WARN] = [30, 40];
    await until(
      () => log.some((line) => line.reason === reason && line.level === INFO),
      'the log line',
    );
    expect(log.filter(({ level }) => Number(level) > WARN)).toEqual([]);
  },
);

const record = (): UploadCall => ({
  notes: {},
  events: 0,
  bytes: 0,
  pending: 0,
  peer: '127.0.0.1:1',
  signal: new AbortController().signal,
});

describe('an upload that its rate holds back', () => {
  const timers = (): number =>
    process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;

  /** Prepares an upload of as much as its client may send in 1,000 seconds. */
  function prepare(signal: AbortSignal) {
    const repository = new EventLog(new MemoryEngine());
    const rates = new UploadRates({ events: 1, bytes: 0 });
    const call = { ...record(), signal };
    async function* frames() {
      yield {
        pieces: [eventFrames(...Array.from({ length: 1_000 }, (_, i) => event(String(i)))).bytes],
      };
    }
    const begin = () => new Uploads(repository, rates).upload(frames(), ANYONE, call);
    return { repository, rates, call, begin };
  }

  test('ends at once when the log refuses it, and nothing of it waits on', async () => {
    const { repository, rates, call, begin } = prepare(new AbortController().signal);
    await repository.close();
    const before = timers();
    await expect(begin()).rejects.toMatchObject({ reason: 'INSERT_FAILED' });
    expect(timers()).toBe(before);
    expect(call.pending).toBe(0);
    expect(rates.waited).toBeLessThan(10_000);
  });

  test('counts as waiting for as long as it waits, and holds nothing once its call ends', async () => {
    const end = new AbortController();
    const { repository, rates, call, begin } = prepare(end.signal);
    const uploading = begin();
    await until(() => repository.head === 1_000, 'its events');
    await sleep(100);
    expect(call.pending).toBe(1);
    end.abort(draining());
    await expect(uploading).rejects.toMatchObject({ reason: 'DRAINING' });
    expect(call.pending).toBe(0);
    expect(rates.waited).toBeGreaterThan(90);
    expect(rates.waited).toBeLessThan(10_000);
    await repository.close();
  });
});

test.each([
  ['has no room', new AppendError('storage-full', 'full'), { received: '1' }],
  ['holds too many topics', new TooManyTopicsError(1, 1, ['orders']), { received: '1' }],
  ['refuses the commit, of which it may have stored some', new AppendError('refused', 'EIO'), {}],
  ['does not answer, and may store the events later', new AppendError('unavailable', 'late'), {}],
])(
  'an upload that an operator has ended says so, though its store %s; it has `received` only where nothing more can be stored',
  async (_, failure, metadata) => {
    class FailingEngine extends MemoryEngine {
      private made = 0;
      override async commit(commit: EngineCommit): Promise<void> {
        if (++this.made > 1) throw failure;
        return super.commit(commit);
      }
    }
    const repository = new EventLog(new FailingEngine());
    const end = new AbortController();
    async function* frames() {
      yield { pieces: [eventFrames(event('a')).bytes] };
      await until(() => repository.head === 1, 'the first event');
      yield { pieces: [eventFrames(event('b')).bytes] };
      end.abort(endedByOperator());
    }
    const call = { ...record(), signal: end.signal };
    const error: unknown = await new Uploads(repository)
      .upload(frames(), ANYONE, call)
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ reason: 'ENDED_BY_OPERATOR' });
    expect((error as FeedError).metadata).toEqual(metadata);
    await repository.close();
  },
);

test('uploads that are ahead by more than a timer can wait for are held back, too', async () => {
  const rates = new UploadRates({ events: 1, bytes: 0 });
  const { signal } = new AbortController();
  const outcomes = [1, 2].map(() => {
    const held = { isOver: false };
    void rates.hold(rates.take('ann', 2 ** 31, 0), signal).then(() => (held.isOver = true));
    return held;
  });
  await sleep(100);
  expect(outcomes).toEqual([{ isOver: false }, { isOver: false }]);
});

test('an upload ends at the largest number of events that its result can count, and says how many are stored', async () => {
  const repository = new EventLog(new MemoryEngine());
  async function* frames() {
    yield {
      pieces: [eventFrames(...Array.from({ length: 10 }, (_, i) => event(String(i)))).bytes],
    };
  }
  const uploading = new Uploads(repository).upload(frames(), ANYONE, record(), 5);
  await expect(uploading).rejects.toMatchObject({
    reason: 'UPLOAD_TOO_LONG',
    metadata: { received: '5' },
  });
  await repository.close();
});

test('an upload with one topic too many counts what of it is stored by the same commit', async () => {
  class SlowEngine extends MemoryEngine {
    override async commit(commit: EngineCommit): Promise<void> {
      await new Promise(setImmediate);
      return super.commit(commit);
    }
  }
  const repository = new EventLog(new SlowEngine(), { maxTopics: 1 });
  async function* frames() {
    yield { pieces: [eventFrames(event('a')).bytes] };
    yield { pieces: [eventFrames(event('b', { topic: 'another' })).bytes] };
  }
  await expect(new Uploads(repository).upload(frames(), ANYONE, record())).rejects.toMatchObject({
    reason: 'LIMIT_EXCEEDED',
    metadata: { received: '1' },
  });
  await repository.close();
  expect(repository.head).toBe(1);
});

test.each<['refused' | 'storage-full', string]>([
  ['refused', 'INSERT_FAILED'],
  ['storage-full', 'STORAGE_FULL'],
])('a store that fails with %s ends an upload with %s', async (reason, expected) => {
  class FailingEngine extends MemoryEngine {
    override commit(commit: EngineCommit): Promise<void> {
      if (commit.runs.some((run) => run.first > 2))
        return Promise.reject(new AppendError(reason, 'no'));
      return super.commit(commit);
    }
  }
  const repository = new EventLog(new FailingEngine());
  const more = Promise.withResolvers<void>();
  async function* frames() {
    yield { pieces: [eventFrames(event('a'), event('b')).bytes] };
    await more.promise;
    yield { pieces: [eventFrames(event('c')).bytes] };
    await new Promise(() => {}); // the client sends nothing more, and gets its status all the same
  }
  const stream = frames();
  // Like the transport's iterator, this one can be left while its next() still waits.
  const leaving = {
    [Symbol.asyncIterator]: () => ({
      next: () => Promise.race([stream.next(), left.promise]),
      return: () => left.resolve({ done: true, value: undefined }) as never,
    }),
  };
  const left = Promise.withResolvers<IteratorResult<{ pieces: Buffer[] }, void>>();
  const uploading = new Uploads(repository).upload(leaving, ANYONE, record());
  await until(() => repository.head === 2, 'the first two');
  more.resolve();
  await expect(uploading).rejects.toMatchObject({
    reason: expected,
    message: expected === 'INSERT_FAILED' ? 'insert: no' : 'no',
    metadata: { received: '2' },
  });
  await repository.close();
});
