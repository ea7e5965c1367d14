import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Metadata, status } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { Event, WatchRequest } from '../../src/gen/feed/v1/feed.js';
import { frame, FRAME_HEADER_BYTES, messagesIn } from '../../src/wire/frames.js';
import { codec, errorInfo, failure, type FeedClient, take, upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { type RawCall, RawClient } from '../support/raw-client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until, upToThrice, within } from '../support/wait.js';
import {
  callHeaders,
  DATA,
  END_HEADERS,
  END_STREAM,
  GOAWAY,
  h2,
  type H2Frame,
  HEADERS,
  PREFACE,
  RawSocket,
  SETTINGS,
} from '../faults/raw-socket.js';

/** A connection lives for so long (milliseconds), in which a busy machine opens its calls. */
const AGE = 4_000;

/** Starts a service that moves connections at that age. */
function movingService(
  grace: number,
  settings: Record<string, string> = {},
): Promise<ServiceProcess> {
  return ServiceProcess.start({
    FEED_ENGINE: 'memory',
    FEED_MAX_CONNECTION_AGE: `${AGE}ms`,
    FEED_MAX_CONNECTION_AGE_GRACE: `${grace}ms`,
    ...settings,
  });
}

interface Connected {
  readonly raw: RawClient;
  /** When the connection was begun, by performance.now(). */
  readonly since: number;
  /** Resolves with the time at which the server sent GOAWAY. */
  readonly goaway: Promise<number>;
}

async function connectTo({ grpcAddress }: ServiceProcess): Promise<Connected> {
  const since = performance.now();
  const raw = await RawClient.connect(grpcAddress);
  onTestFinished(() => raw.close());
  const goaway = new Promise<number>((resolve) =>
    raw.session.once('goaway', () => resolve(performance.now())),
  );
  return { raw, since, goaway };
}

function openWatch(raw: RawClient, request: Partial<WatchRequest> = { topic: 't' }): RawCall {
  const call = raw.open('Watch').send(codec.watchRequest.serialize(request));
  call.stream.end();
  return call;
}

/** Opens watches that read what comes, and waits until the server has them, or they have ended without headers. */
async function openWatches(raw: RawClient, count: number): Promise<RawCall[]> {
  const calls = Array.from({ length: count }, () => openWatch(raw).drop());
  await Promise.all(calls.map(({ headers, closed }) => Promise.race([headers, closed])));
  return calls;
}

interface Outcome {
  readonly at: number;
  /** The status and the reason, or how the call ended without a status. */
  readonly end: string;
  readonly metadata: Readonly<Record<string, string>>;
}

async function outcomeOf(call: RawCall): Promise<Outcome> {
  const trailers = await call.trailers;
  const at = performance.now();
  if (!trailers) return { at, end: `reset with ${call.stream.rstCode}`, metadata: {} };
  const info = errorInfo(Metadata.fromHttp2Headers(trailers));
  const code = status[Number(trailers['grpc-status'])];
  return { at, end: info ? `${code} ${info.reason}` : code, metadata: info?.metadata ?? {} };
}

/** The largest number of times within any `window` milliseconds. */
function mostWithin(window: number, times: readonly number[]): number {
  return Math.max(
    ...times.map((from) => times.filter((at) => at >= from && at < from + window).length),
  );
}

const rangeOf = (times: readonly number[]): number => Math.max(...times) - Math.min(...times);

/** True for times that are spread over about `span` milliseconds. */
const areSpread = (times: readonly number[], span: number): boolean =>
  rangeOf(times) > span / 2 && mostWithin(span / 10, times) < times.length / 2;

/** Uploads events. Where a move refuses that, it is done again: their ids keep them from being stored twice. */
async function store(client: FeedClient, events: readonly Partial<Event>[]): Promise<void> {
  for (;;) {
    const { error } = await upload(client, events);
    if (!error) return;
    expect(errorInfo(error.metadata)?.reason).toBe('MOVED');
  }
}

describe('a connection that is older than FEED_MAX_CONNECTION_AGE', () => {
  test('gets GOAWAY; its watches and chats end with MOVED, spread over the grace', async () => {
    const grace = 3_000;
    const service = await movingService(grace, { FEED_MAX_CONNECTION_AGE: '6s' });
    const endsOfCalls = async (): Promise<number[]> => {
      const { raw, goaway } = await connectTo(service);
      const calls = await openWatches(raw, 100);
      const question = codec.chatMessage.serialize({ text: 'open?' });
      const chats = Array.from({ length: 10 }, () => raw.open('Chat').send(question).drop());
      await Promise.all(chats.map(({ headers }) => headers));
      calls.push(...chats);
      const outcomes = await within(Promise.all(calls.map(outcomeOf)), 'the ends');
      const began = await goaway;
      expect(new Set(outcomes.map(({ end }) => end))).toEqual(new Set(['UNAVAILABLE MOVED']));
      const times = outcomes.map(({ at }) => at);
      expect(Math.min(...times)).toBeGreaterThanOrEqual(began);
      await until(() => raw.session.destroyed, 'the end of the connection');
      return times;
    };
    const times = await upToThrice(endsOfCalls, (found) => areSpread(found, grace));
    expect(rangeOf(times)).toBeGreaterThan(grace / 2);
    expect(mostWithin(grace / 10, times)).toBeLessThan(times.length / 2);
  });

  test('moves about then: not more than 10% earlier or later, and not all at once', async () => {
    const service = await movingService(0);
    const agesAtMove = async (): Promise<number[]> => {
      const connections = await Promise.all(Array.from({ length: 30 }, () => connectTo(service)));
      const ages = await within(
        Promise.all(connections.map(async ({ since, goaway }) => (await goaway) - since)),
        'all moves',
      );
      expect(Math.min(...ages)).toBeGreaterThan(0.9 * AGE - 5);
      return ages;
    };
    // The time from a move to its client counts as well.
    const most = 1.1 * AGE + 2_000;
    const ages = await upToThrice(
      agesAtMove,
      (found) => Math.max(...found) < most && rangeOf(found) > 0.04 * AGE,
    );
    expect(Math.max(...ages)).toBeLessThan(most);
    expect(rangeOf(ages)).toBeGreaterThan(0.04 * AGE);
  });

  test('is closed at once if it has no calls, also if its client does not close it', async () => {
    const service = await movingService(60_000);
    const socket = await RawSocket.connect(service.grpcAddress);
    await socket.send(PREFACE, h2(SETTINGS, 0, 0));
    const client = service.connect();
    await store(client, [{ topic: 't' }]);
    await until(() => socket.isClosed, 'the end of the connection');
    expect(socket.frames.some(({ type }) => type === GOAWAY)).toBe(true);
    await sleep(1.5 * AGE);
    await store(client, [{ topic: 't' }]);
  });

  test('closes after its last call, also if its client does not close it', async () => {
    const service = await movingService(500);
    const socket = await RawSocket.connect(service.grpcAddress);
    const path = '/feed.v1.FeedService/Watch';
    const request = frame(codec.watchRequest.serialize({ topic: 't' }));
    await socket.send(
      PREFACE,
      h2(SETTINGS, 0, 0),
      h2(HEADERS, END_HEADERS, 1, callHeaders(path)),
      h2(DATA, END_STREAM, 1, request),
    );
    await until(() => socket.isClosed, 'the end of the connection');
    const { frames } = socket;
    const isStatus = ({ type, stream, flags }: H2Frame): boolean =>
      type === HEADERS && stream === 1 && (flags & END_STREAM) !== 0;
    const goaway = frames.findIndex(({ type }) => type === GOAWAY);
    expect(goaway).toBeGreaterThan(-1);
    expect(frames.findIndex(isStatus)).toBeGreaterThan(goaway);
  });

  test('takes no more calls: one whose request comes late is refused', async () => {
    // The open watch ends at a random moment of the grace, which is an hour.
    const { raw, goaway } = await connectTo(await movingService(3_600_000));
    const [open] = await openWatches(raw, 1);
    const late = raw.open('Watch').drop();
    await raw.pinged();
    await goaway;
    late.send(codec.watchRequest.serialize({ topic: 't' })).stream.end();
    expect(await outcomeOf(late)).toMatchObject({ end: 'UNAVAILABLE MOVED', metadata: {} });
    expect(open.stream.closed).toBe(false);
  });

  test('lets uploads finish; one that does not ends with MOVED and `received` at the end of the grace', async () => {
    const grace = 5_000;
    const { raw, since, goaway } = await connectTo(await movingService(grace));
    const event = codec.event.serialize({ topic: 't', body: 'x' });
    const uploads = [raw.open('UploadEvents'), raw.open('UploadEvents')];
    const [finishing, staying] = uploads.map((call) => call.send(event).send(event).drop());
    const outcome = outcomeOf(staying);
    await within(goaway, 'GOAWAY');
    finishing.send(event).stream.end();
    expect(await within(outcomeOf(finishing), 'the result')).toMatchObject({ end: 'OK' });
    const { at, ...ended } = await within(outcome, 'the end');
    expect(ended).toEqual({ end: 'UNAVAILABLE MOVED', metadata: { received: '2' } });
    // This process may see GOAWAY late.
    expect(at - since).toBeGreaterThan(0.9 * AGE + grace - 50);
  });

  test('ends a watch after whole messages, with the cursor of the last one', async () => {
    const service = await movingService(0);
    const body = 'x'.repeat(500_000);
    const client = service.connect();
    await store(client, [
      { topic: 't', id: 'large', body },
      { topic: 't', id: 'next' },
    ]);
    const { raw, goaway } = await connectTo(service);
    const call = openWatch(raw, { topic: 't', position: 1 });
    const outcome = outcomeOf(call);
    // A part of the event fills the client's window when the watch ends.
    await until(() => call.isFull, 'a window that is used up');
    await within(goaway, 'GOAWAY');
    const chunks: Buffer[] = [];
    call.stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    const { end, metadata } = await within(outcome, 'the end');
    expect(end).toBe('UNAVAILABLE MOVED');
    const received = Buffer.concat(chunks);
    expect(received.readUInt32BE(1)).toBe(received.length - FRAME_HEADER_BYTES);
    const [event] = [...messagesIn(received)].map((message) => codec.event.deserialize(message));
    expect(event).toMatchObject({ id: 'large', body });
    expect(metadata).toEqual({ cursor: event.cursor });
    const [next] = await take(client, { topic: 't', afterCursor: metadata.cursor }, 1);
    expect(next.id).toBe('next');
  });

  test('ends a watch to which nothing has come with a cursor, too', async () => {
    const service = await movingService(0);
    const client = service.connect();
    await store(client, [{ topic: 't', id: 'before' }]);
    const error = await within(failure(client.Watch({ topic: 't' })), 'the end');
    const { reason, metadata } = errorInfo(error.metadata)!;
    expect(reason).toBe('MOVED');
    await store(client, [{ topic: 't', id: 'after' }]);
    const [event] = await take(client, { topic: 't', afterCursor: metadata.cursor }, 1);
    expect(event.id).toBe('after');
  });

  test('costs a watch no event and doubles none, through many moves', async () => {
    const service = await movingService(500);
    const [producer, consumer] = [service.connect(), service.connect()];
    const sent: string[] = [];
    const state = { isDone: false };
    const producing = (async () => {
      while (!state.isDone) {
        const events = Array.from({ length: 5 }, (_, i) => ({
          topic: 't',
          id: String(sent.length + i),
          body: 'x'.repeat(i === 4 ? 200_000 : 10),
        }));
        await store(producer, events);
        sent.push(...events.map(({ id }) => id));
        await sleep(20);
      }
    })();
    const received: string[] = [];
    let cursor = '';
    for (let moves = 0; moves < 5; moves++) {
      const watch = consumer.Watch(
        cursor === '' ? { topic: 't', position: 1 } : { topic: 't', afterCursor: cursor },
      );
      watch.on('data', (event: Event) => {
        received.push(event.id);
        ({ cursor } = event);
      });
      const [error] = (await within(once(watch, 'error'), 'the move')) as [{ metadata: Metadata }];
      // There are no other topics, so the watch stands at the last event that it was sent.
      expect(errorInfo(error.metadata)).toMatchObject({ reason: 'MOVED', metadata: { cursor } });
    }
    state.isDone = true;
    await producing;
    const count = sent.length - received.length;
    if (count > 0) {
      const rest = await take(consumer, { topic: 't', afterCursor: cursor }, count);
      received.push(...rest.map(({ id }) => id));
    }
    expect(received).toEqual(sent);
  });

  test('is not taken for dead while it moves, though node asks its client for no sign of life', async () => {
    const service = await movingService(5_000, {
      FEED_KEEPALIVE_TIME: '300ms',
      FEED_KEEPALIVE_TIMEOUT: '2s',
    });
    const endsOfCalls = async (): Promise<string[]> => {
      const { raw } = await connectTo(service);
      const calls = await openWatches(raw, 10).catch(() => []); // The connection may have ended by then.
      const outcomes = await within(Promise.all(calls.map(outcomeOf)), 'the ends');
      return [...new Set(outcomes.map(({ end }) => end))];
    };
    // A client that stands still for two seconds before its move is rightly taken for dead.
    const ends = await upToThrice(endsOfCalls, (found) => found.join() === 'UNAVAILABLE MOVED');
    expect(ends).toEqual(['UNAVAILABLE MOVED']);
  });

  test('is ended by a drain that comes meanwhile, which waits for no move', async () => {
    const service = await movingService(60_000, { FEED_DRAIN_TIMEOUT: '300ms' });
    const { raw, goaway } = await connectTo(service);
    const calls = await openWatches(raw, 20);
    const uploading = raw.open('UploadEvents').drop();
    uploading.send(codec.event.serialize({ topic: 't' }));
    const outcomes = Promise.all([...calls, uploading].map(outcomeOf));
    await within(goaway, 'GOAWAY');
    // In less than the 60 s of the grace.
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    const ended = await within(outcomes, 'the ends');
    for (const { end } of ended)
      expect(end).toBeOneOf(['UNAVAILABLE DRAINING', 'UNAVAILABLE MOVED']);
    expect(ended.at(-1)!.metadata).toEqual({ received: '1' });
  });
});

test('a connection does not move by default', async () => {
  const service = await ServiceProcess.start({ FEED_ENGINE: 'memory' });
  const { raw } = await connectTo(service);
  const [watch] = await openWatches(raw, 1);
  let hasMoved = false;
  raw.session.once('goaway', () => (hasMoved = true));
  await sleep(2 * AGE);
  expect([hasMoved, watch.stream.closed]).toEqual([false, false]);
});

/** Opens watches on several connections, ends the service by SIGTERM, and resolves with how the watches ended. */
async function drainUnderWatches(
  service: ServiceProcess,
): Promise<{ outcomes: Outcome[]; took: number }> {
  const connections = await Promise.all(Array.from({ length: 5 }, () => connectTo(service)));
  const calls = await Promise.all(connections.map(({ raw }) => openWatches(raw, 10)));
  const ends = Promise.all(calls.flat().map(outcomeOf));
  const start = performance.now();
  expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  return { took: performance.now() - start, outcomes: await within(ends, 'the ends') };
}

test('a drain of a single process ends all watches at once, whatever FEED_DRAIN_SPREAD is', async () => {
  const service = await ServiceProcess.start({
    FEED_DATA_DIR: temporaryDirectory(),
    FEED_DRAIN_SPREAD: '10m',
  });
  // This waits less than a minute.
  const { outcomes } = await drainUnderWatches(service);
  expect(new Set(outcomes.map(({ end }) => end))).toEqual(new Set(['UNAVAILABLE DRAINING']));
});

describe.skipIf(!NATS_SERVER)('with jetstream', () => {
  let servers: NatsServer[];
  beforeAll(async () => void (servers = await NatsServer.start(1, { jetstream: '' })));
  afterAll(() => Promise.all(servers.map((server) => server.remove())));

  test('a drain on jetstream ends watches one after another, and another replica goes on after their cursors', async () => {
    const spread = 3_000;
    const settings = { ...jetstreamSettings(servers), FEED_DRAIN_SPREAD: `${spread}ms` };
    const staying = await ServiceProcess.start(settings);
    const client = staying.connect();
    await store(client, [{ topic: 't', id: 'before' }]);
    const timesOf = (outcomes: Outcome[]): number[] => outcomes.map(({ at }) => at);
    const drained = async (): Promise<Outcome[]> => {
      const { outcomes } = await drainUnderWatches(await ServiceProcess.start(settings));
      expect(new Set(outcomes.map(({ end }) => end))).toEqual(new Set(['UNAVAILABLE DRAINING']));
      return outcomes;
    };
    const outcomes = await upToThrice(drained, (found) => areSpread(timesOf(found), spread));
    expect(rangeOf(timesOf(outcomes))).toBeGreaterThan(spread / 2);
    expect(mostWithin(spread / 10, timesOf(outcomes))).toBeLessThan(outcomes.length / 2);
    await store(client, [{ topic: 't', id: 'after' }]);
    const { cursor } = outcomes[0].metadata;
    const [event] = await take(client, { topic: 't', afterCursor: cursor }, 1);
    expect(event.id).toBe('after');
  });

  test('a drain on jetstream has the time that it takes: the default of 5 s, and more', async () => {
    const settings = { ...jetstreamSettings(servers), FEED_DRAIN_SPREAD: '12s' };
    const service = await ServiceProcess.start({ ...settings, FEED_DRAIN_TIMEOUT: '0s' });
    // Longer than all else that a shutdown may take: it would end as late, with another exit code.
    const { took } = await drainUnderWatches(service);
    expect(took).toBeGreaterThan(9_000);
  });
});
