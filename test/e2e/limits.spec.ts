import { once } from 'node:events';
import http2 from 'node:http2';
import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { expect, onTestFinished, test, vi } from 'vitest';
import { LiveCalls } from '../../src/feed/live-calls.js';
import { OpenWork } from '../../src/feed/open-work.js';
import { EventRepository } from '../../src/repository/event-repository.js';
import { MemoryEngine } from '../../src/repository/memory/memory-engine.js';
import { frame } from '../../src/wire/frames.js';
import { connect, errorInfo, failure, type FeedClient, upload } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { runService } from '../support/service.js';
import { eventually, standstill, until, within } from '../support/wait.js';
import { bytesField } from '../wire/events.js';

const event = (id: string, bytes = 0) => ({ topic: 't', id, body: 'x'.repeat(bytes) });

function another(address: string): FeedClient {
  const client = connect(address);
  onTestFinished(() => client.close());
  return client;
}

interface Opened {
  /** The error with which it was refused; undefined if it is open. */
  readonly error: ServiceError | undefined;
  cancel(): void;
}

/** Waits until a call has shown a sign of life, or has ended with an error. */
async function opened(
  call: NodeJS.EventEmitter & { cancel(): void },
  sign: string,
  ended: Promise<ServiceError>,
): Promise<Opened> {
  const error = await Promise.race([once(call, sign).then(() => undefined), ended]);
  return { error, cancel: () => call.cancel() };
}

const OPEN = {
  WATCHES: (client: FeedClient) => {
    const call = client.Watch({ topic: 't' });
    return opened(call, 'metadata', failure(call));
  },
  UPLOADS: (client: FeedClient) => {
    const ended = Promise.withResolvers<ServiceError>();
    const call = client.UploadEvents((error) => error && ended.resolve(error));
    return opened(call, 'metadata', ended.promise);
  },
  CHATS: (client: FeedClient) => {
    const call = client.Chat();
    call.write({ text: 'hi' });
    return opened(call, 'data', failure(call));
  },
};

test.each(['WATCHES', 'UPLOADS', 'CHATS'] as const)(
  '%s beyond the limit of a connection, and of the process, are refused until others end',
  async (kind) => {
    const [perConnection, inAll] = [`FEED_MAX_${kind}_PER_CONNECTION`, `FEED_MAX_${kind}`];
    const service = await runService({ [perConnection]: '2', [inAll]: '3' });
    const refusal = async (client: FeedClient) => {
      const call = await OPEN[kind](client);
      const { error } = call;
      if (!error) call.cancel();
      return error && errorInfo(error.metadata);
    };
    const { client } = service;
    const first = await OPEN[kind](client);
    expect((await OPEN[kind](client)).error).toBeUndefined();
    expect(await refusal(client)).toMatchObject({
      reason: 'LIMIT_EXCEEDED',
      metadata: { limit: perConnection, most: '2' },
    });
    const other = another(service.grpcAddress);
    expect((await OPEN[kind](other)).error).toBeUndefined();
    expect(await refusal(other)).toMatchObject({ metadata: { limit: inAll, most: '3' } });
    first.cancel();
    await eventually(async () => expect(await refusal(other)).toBeUndefined());
  },
);

test('a room beyond FEED_MAX_ROOMS is refused, and one that is open is not', async () => {
  const { client } = await runService({ FEED_MAX_ROOMS: '1' });
  const [one, two, three] = [client.Chat(), client.Chat(), client.Chat()];
  one.write({ room: 'a' });
  one.write({ text: 'hi' });
  await once(one, 'data');
  two.write({ room: 'a' });
  two.write({ text: 'hi' });
  await once(two, 'data');
  for (const chat of [one, two]) chat.on('error', () => {});
  three.write({ room: 'b' });
  const error = await failure(three);
  expect(error.code).toBe(status.RESOURCE_EXHAUSTED);
  expect(errorInfo(error.metadata)).toMatchObject({
    reason: 'LIMIT_EXCEEDED',
    metadata: { limit: 'FEED_MAX_ROOMS' },
  });
  one.cancel();
  two.cancel();
});

test('topics of watches and rooms of chats beyond FEED_MAX_SUBSCRIPTIONS are refused until others end', async () => {
  const { client } = await runService({ FEED_MAX_SUBSCRIPTIONS: '4' });
  const refusal = async (topics: string[]) => {
    const watch = client.Watch({ topics });
    const { error } = await opened(watch, 'metadata', failure(watch));
    if (!error) watch.cancel();
    return error && errorInfo(error.metadata);
  };
  const limit = {
    reason: 'LIMIT_EXCEEDED',
    metadata: { limit: 'FEED_MAX_SUBSCRIPTIONS', most: '4' },
  };
  const first = client.Watch({ topics: ['a', 'b'] });
  await opened(first, 'metadata', failure(first));
  const chat = client.Chat();
  const ended = failure(chat);
  chat.write({ room: 'r' });
  chat.write({ text: 'hi' });
  await once(chat, 'data');
  // A pattern counts as its tokens, and a watch of one topic does not count.
  expect(await refusal(['c', 'd.*'])).toMatchObject(limit);
  expect(await refusal(['d.*'])).toBeUndefined();
  first.cancel();
  await eventually(async () => expect(await refusal(['c', 'd.*'])).toBeUndefined());
  for (const room of ['r', 's', 't', 'u', 'v']) chat.write({ room });
  expect(errorInfo((await ended).metadata)).toMatchObject(limit);
  await eventually(async () => expect(await refusal(['c', 'd', 'e', 'f'])).toBeUndefined());
});

test('more than 100 calls of reflection on a connection, or 1,000 in all, are refused until others end', async () => {
  const service = await runService({ FEED_ENGINE: 'memory' });
  const reflect = (raw: RawClient) =>
    raw.open('', { ':path': '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo' });
  const refusal = async (raw: RawClient) =>
    (await within(reflect(raw).drop().trailers, 'the refusal'))?.['grpc-status'];
  const reflections = () =>
    [...service.app.get(LiveCalls)].filter(({ method }) => method.includes('Reflection')).length;
  const full: RawClient[] = [];
  for (let i = 1; i <= 10; i++) {
    const raw = await RawClient.connect(service.grpcAddress);
    onTestFinished(() => raw.close());
    for (let n = 0; n < 100; n++) reflect(raw);
    await until(() => reflections() === i * 100, 'the calls');
    full.push(raw);
  }
  const other = await RawClient.connect(service.grpcAddress);
  onTestFinished(() => other.close());
  const exhausted = String(status.RESOURCE_EXHAUSTED);
  expect([await refusal(full[0]), await refusal(other)]).toEqual([exhausted, exhausted]);
  full[1].close();
  await until(() => reflections() === 900, 'the end of 100 calls');
  expect(await refusal(full[0])).toBe(exhausted);
  const { stream } = reflect(other);
  // Field 7 asks for the list of services.
  stream.write(frame(bytesField(7, '*')));
  await within(once(stream, 'data'), 'an answer');
});

test('connections beyond FEED_MAX_CONNECTIONS are refused, and the log names the setting', async () => {
  const service = await runService({ FEED_MAX_CONNECTIONS: '1' });
  await upload(service.client, [event('a')]);
  const { error } = await upload(another(service.grpcAddress), [event('b')]);
  expect(error?.code).toBe(status.UNAVAILABLE);
  await until(
    () => service.log.some(({ msg }) => /beyond 1\. Raise FEED_MAX_CONNECTIONS/.test(String(msg))),
    'the line in the log',
  );
});

test('uploads that are too fast are read more slowly, and lose nothing; those of others are not held back', async () => {
  const service = await runService({ FEED_UPLOAD_BYTES_PER_SECOND: '200KiB' });
  const events = Array.from({ length: 30 }, (_, i) => event(String(i), 20 * 1024));
  const startedAt = performance.now();
  const fast = upload(service.client, events);
  const { result: ofOther } = await upload(another(service.grpcAddress), [event('other')]);
  expect(ofOther?.received).toBe(1);
  const { result } = await fast;
  expect(result?.received).toBe(30);
  // A client may be ahead by one second's worth: 200 KiB of 600.
  expect(performance.now() - startedAt).toBeGreaterThan(1_500);
});

test('an upload that is held back ends at once when its client cancels it', async () => {
  const service = await runService({ FEED_UPLOAD_EVENTS_PER_SECOND: '1' });
  const call = service.client.UploadEvents(() => {});
  call.on('error', () => {});
  for (let i = 0; i < 1_000; i++) call.write(event(String(i)));
  await until(() => service.app.get(OpenWork).counts.uploads === 1, 'the open upload');
  await until(() => service.app.get(EventRepository).head > 0, 'its first events');
  call.cancel();
  await until(() => service.app.get(OpenWork).counts.uploads === 0, 'its end');
});

test('a connection has few streams beside those that its limits allow, whatever they are for', async () => {
  const one = { FEED_MAX_WATCHES_PER_CONNECTION: '1', FEED_MAX_UPLOADS_PER_CONNECTION: '1' };
  const service = await runService({ ...one, FEED_MAX_CHATS_PER_CONNECTION: '1' });
  const session = http2.connect(`http://${service.grpcAddress}`);
  onTestFinished(() => session.destroy());
  await once(session, 'remoteSettings');
  expect(session.remoteSettings.maxConcurrentStreams).toBe(103);
});

test('an event of a topic beyond FEED_MAX_TOPICS ends its upload, and those of others go on', async () => {
  const { client } = await runService({ FEED_MAX_TOPICS: '1' });
  expect((await upload(client, [event('a')])).result?.received).toBe(1);
  const { error } = await upload(client, [{ topic: 'new', id: 'b' }]);
  expect(error?.code).toBe(status.RESOURCE_EXHAUSTED);
  expect(errorInfo(error!.metadata)).toMatchObject({
    reason: 'LIMIT_EXCEEDED',
    metadata: { limit: 'FEED_MAX_TOPICS', most: '1', received: '0' },
  });
  expect((await upload(client, [event('c')])).result?.received).toBe(1);
});

test('a call whose headers are over FEED_MAX_METADATA_BYTES is refused, and its connection goes on', async () => {
  const service = await runService({ FEED_MAX_METADATA_BYTES: '8KiB' });
  const attempt = (bytes: number) =>
    new Promise<number | undefined>((resolve) => {
      const metadata = new Metadata();
      metadata.set('x-a', 'a'.repeat(bytes));
      const call = service.client.UploadEvents(metadata, {}, (error) => resolve(error?.code));
      call.on('error', () => {});
      call.end();
    });
  expect(await attempt(7 * 1024)).toBeUndefined();
  expect(await attempt(9 * 1024)).toBe(status.RESOURCE_EXHAUSTED);
  expect(await attempt(7 * 1024)).toBeUndefined();
  const peers = service.log.filter(({ msg }) => msg === 'call ended').map(({ peer }) => peer);
  expect(new Set(peers).size).toBe(1);
});

test('an upload has no more than FEED_UNSTORED_BYTES_PER_UPLOAD that is not stored yet', async () => {
  const service = await runService({
    FEED_ENGINE: 'memory',
    FEED_UNSTORED_BYTES_PER_UPLOAD: '64KiB',
    FEED_STREAM_WINDOW: '64KiB',
    FEED_SESSION_WINDOW: '128KiB',
  });
  const held = Promise.withResolvers<void>();
  const commit = vi.spyOn(MemoryEngine.prototype, 'commit').mockReturnValue(held.promise);
  onTestFinished(() => commit.mockRestore());
  const events = Array.from({ length: 200 }, (_, i) => event(String(i), 8 * 1024));
  const stored = upload(service.client, events);
  const accepted = () => [...service.app.get(LiveCalls)][0]?.bytes ?? 0;
  await until(() => accepted() >= 64 * 1024, 'what may wait');
  expect(await standstill(accepted)).toBeLessThan(256 * 1024);
  commit.mockRestore();
  held.resolve();
  expect((await stored).result?.received).toBe(200);
});
