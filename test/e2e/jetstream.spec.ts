import { setTimeout as sleep } from 'node:timers/promises';
import { type ServiceError, status } from '@grpc/grpc-js';
import { connect as connectFeed } from '@feed-events/client';
import { connect } from '@nats-io/transport-node';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { Rooms } from '../../src/broker/rooms.js';
import type { Event, UploadResult } from '../../src/gen/feed/v1/feed.js';
import { LiveCalls } from '../../src/feed/live-calls.js';
import { Watches } from '../../src/feed/watch.js';
import { RefusedError, type StreamApi, UnansweredError } from '../../src/nats/stream-api.js';
import { EventRepository } from '../../src/repository/event-repository.js';
import type { LogState } from '../../src/repository/jetstream/log-state.js';
import { findDurability } from '../../src/repository/jetstream/durability.js';
import { SetupError } from '../../src/nats/setup-error.js';
import { connectAdmin } from '../support/admin.js';
import { errorInfo, failure, type FeedClient, take, upload } from '../support/client.js';
import { ask } from '../support/http.js';
import { jetstreamSettings, NATS_SERVER, NatsServer, SYSTEM } from '../support/nats.js';
import { runService, ServiceProcess } from '../support/service.js';
import { expectNothingMissed, whileNextWatchStarts } from '../support/start-race.js';
import { eventually, until, upToThrice, within } from '../support/wait.js';

const numbered = (from: number, count: number, topic = 'orders'): Partial<Event>[] =>
  Array.from({ length: count }, (_, i) => ({ topic, id: String(from + i) }));
const ids = (events: readonly Event[]): string[] => events.map(({ id }) => id);

/** Watches a topic from earliest, and collects what comes until the test ends. */
function watching(
  client: FeedClient,
  topic = 'orders',
): { events: Event[]; began: Promise<unknown>; ended: Promise<ServiceError> } {
  const events: Event[] = [];
  const call = client.Watch({ topic, position: 1 });
  call.on('data', (event: Event) => events.push(event));
  const began = new Promise((resolve) => call.on('metadata', resolve));
  const ended = new Promise<ServiceError>((resolve) => call.on('error', resolve));
  onTestFinished(() => call.cancel());
  return { events, began, ended };
}

async function leaderOf(servers: readonly NatsServer[]): Promise<NatsServer> {
  const answer = await fetch(`${servers[0].monitorUrl}/varz`);
  const { jetstream } = (await answer.json()) as { jetstream: { meta: { leader: string } } };
  return servers.find(({ name }) => name === jetstream.meta.leader)!;
}

async function remove(servers: readonly NatsServer[]): Promise<void> {
  await Promise.all(servers.map((server) => server.remove()));
}

describe.skipIf(!NATS_SERVER)('on one server', () => {
  let servers: NatsServer[];
  beforeAll(async () => void (servers = await NatsServer.start(1, { jetstream: '' })));
  afterAll(() => remove(servers));

  test('two replicas serve one log: each takes uploads, and watches of both get all events', async () => {
    const settings = jetstreamSettings(servers);
    const [one, other] = [await runService(settings), await runService(settings)];
    const [a, b] = [watching(one.client), watching(other.client)];
    for (let i = 0; i < 20; i++) {
      const { client } = i % 2 ? one : other;
      expect((await upload(client, numbered(10 * i, 10))).result?.received).toBe(10);
    }
    await until(() => a.events.length === 200 && b.events.length === 200, 'all events on both');
    expect(ids(a.events)).toEqual(Array.from({ length: 200 }, (_, i) => String(i)));
    expect(b.events).toEqual(a.events);
    // A cursor of one is good on the other at once.
    for (let i = 200; i < 250; i++) {
      const { result } = await upload(one.client, numbered(i, 1));
      const next = take(other.client, { topic: 'orders', afterCursor: result!.lastCursor }, 1);
      await upload(other.client, numbered(1_000 + i, 1));
      expect(ids(await next)).toEqual([String(1_000 + i)]);
    }
  });

  test('a chat room has its members on all replicas, and ends with ROOM_INTERRUPTED when they are cut off', async () => {
    const [cut] = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => cut.remove());
    const settings = jetstreamSettings([cut]);
    const replicas = [await runService(settings), await runService(settings)];
    const chats = replicas.map(({ client }, i) => {
      const call = client.Chat();
      const texts: string[] = [];
      call.on('data', ({ text }: { text: string }) => texts.push(text));
      const ended = new Promise<ServiceError>((resolve) => call.on('error', resolve));
      const send = (text: string) => call.write({ room: 'r', from: `${i}`, text });
      send(''); // joins
      return { texts, ended, send };
    });
    const seats = () => replicas.map(({ app }) => app.get(Rooms).seats);
    await until(() => seats().every((count) => count === 1), 'a member on each');
    chats[0].send('from one');
    await until(() => chats[1].texts.includes('from one'), 'the message on the other');
    chats[1].send('back');
    await until(() => chats[0].texts.includes('back'), 'the answer');
    await cut.kill();
    for (const { ended } of chats) {
      const error = await within(ended, 'the end of the chat');
      expect([error.code, errorInfo(error.metadata)?.reason]).toEqual([
        status.UNAVAILABLE,
        'ROOM_INTERRUPTED',
      ]);
    }
    await until(() => seats().every((count) => count === 0), 'no members any more');
  });

  test('a replica that was killed is replaced by another one, and what it stored is not stored twice', async () => {
    const settings = jetstreamSettings(servers);
    const first = await ServiceProcess.start(settings);
    await upload(first.connect(), numbered(0, 5));
    await first.kill('SIGKILL');
    const second = await ServiceProcess.start(settings);
    const client = second.connect();
    const { result } = await upload(client, numbered(3, 5));
    expect(result).toMatchObject({ received: 5, duplicates: 2 });
    expect(ids(await take(client, { topic: 'orders', position: 1 }, 8))).toEqual(
      Array.from({ length: 8 }, (_, i) => String(i)),
    );
    expect(await second.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  });

  test('watches of a stream that is deleted end with EPOCH_CHANGED, on every replica', async () => {
    const settings = jetstreamSettings(servers);
    const [one, other] = [await runService(settings), await runService(settings)];
    await upload(one.client, numbered(0, 3));
    const watches = [watching(one.client), watching(other.client), watching(other.client, 'quiet')];
    await until(
      () => watches.filter(({ events }) => events.length === 3).length === 2,
      'the events',
    );
    await within(watches[2].began, 'the headers of the quiet watch');
    const connection = await servers[0].connect();
    await connection.request(`$JS.API.STREAM.DELETE.${settings.FEED_NATS_STREAM}`, undefined, {
      timeout: 30_000,
    });
    await connection.close();
    for (const { ended } of watches) {
      const error = await within(ended, 'the end of the watch');
      expect([error.code, errorInfo(error.metadata)?.reason]).toEqual([
        status.FAILED_PRECONDITION,
        'EPOCH_CHANGED',
      ]);
    }
    const [{ cursor }] = watches[0].events;
    const error = await failure(one.client.Watch({ topic: 'orders', afterCursor: cursor }));
    expect(errorInfo(error.metadata)?.reason).toBe('EPOCH_CHANGED');
    expect((await upload(other.client, numbered(0, 3))).result?.duplicates).toBe(0);
    expect(ids(await take(one.client, { topic: 'orders', position: 1 }, 3))).toEqual([
      '0',
      '1',
      '2',
    ]);
  });

  test.each([
    ['one topic', { topic: 'orders.a' }],
    ['several topics', { topics: ['orders.*'] }],
  ])(
    'a live watch of %s misses nothing after feed-head, where another replica removes events while it starts',
    async (_what, topics) => {
      const settings = jetstreamSettings(servers);
      const [one, other] = [await runService(settings), await runService(settings)];
      const log = other.app.get<EventRepository & { replica: { state: LogState } }>(
        EventRepository,
      );
      const { state } = log.replica;
      whileNextWatchStarts(log, async () => {
        // This replica is slow to hear of it. The stream itself says what is removed.
        const onMessage = state.onMessage.bind(state);
        state.onMessage = (...message) => void setTimeout(() => onMessage(...message), 500);
        await upload(one.client, [{ topic: 'orders.a', id: 'removed' }]);
        await one.app.get(EventRepository).removeTopic('orders.a');
      });
      const call = other.client.Watch(topics).on('error', () => {});
      await expectNothingMissed(call, one.client);
    },
  );

  /** Starts a replica whose reads of what was stored before its start get no answer. */
  async function runCutOff() {
    // Without deduplication, a replica has nothing in memory of what was stored before its start.
    const settings: Record<string, string> = {
      ...jetstreamSettings(servers),
      FEED_DEDUP_WINDOW: '0s',
    };
    const before = await runService(settings);
    await upload(before.client, numbered(0, 3));
    const { app, client } = await runService(settings);
    const { api } = app.get<{ api: StreamApi }>(EventRepository);
    const read = Promise.withResolvers<void>();
    api.messages = () => {
      read.resolve();
      return Promise.reject(new UnansweredError('cut by the test'));
    };
    return { settings, app, client, isRead: () => within(read.promise, 'a read of the watch') };
  }

  test('a watch whose read waits for NATS when the stream is lost ends with EPOCH_CHANGED as well', async () => {
    const { settings, app, client, isRead } = await runCutOff();
    const { events, ended } = watching(client);
    await isRead();
    // The read fails before the replica has joined the new stream.
    const { api } = app.get<{ api: StreamApi }>(EventRepository);
    const info = api.info.bind(api);
    api.info = async (subjects) => {
      await sleep(1_000);
      return info(subjects);
    };
    const connection = await servers[0].connect();
    await connection.request(`$JS.API.STREAM.DELETE.${settings.FEED_NATS_STREAM}`, undefined, {
      timeout: 30_000,
    });
    await connection.close();
    const error = await within(ended, 'the end of the watch');
    expect(errorInfo(error.metadata)?.reason).toBe('EPOCH_CHANGED');
    expect(events).toEqual([]);
  });

  test.each([
    ['one topic', { topic: 'orders' }],
    ['several topics', { topics: ['orders', 'other'] }],
  ])('a watch of %s whose read waits for NATS ends with its client', async (_what, topics) => {
    const { app, client, isRead } = await runCutOff();
    const watch = client.Watch({ ...topics, position: 1 });
    watch.on('error', () => {});
    await isRead();
    watch.cancel();
    await until(() => app.get(Watches).open.size === 0, 'the end of the watch');
  });

  test('a start of a watch that waits for the stream ends with its client', async () => {
    const settings: Record<string, string> = {
      ...jetstreamSettings(servers),
      FEED_NATS_PATIENCE: '10m',
    };
    const [one, other] = [await runService(settings), await runService(settings)];
    const log = other.app.get<EventRepository & { replica: { state: LogState } }>(EventRepository);
    const catchUp = vi.spyOn(log, 'catchUp');
    const { state } = log.replica;
    state.onMessage = state.onIdle = () => {};
    await upload(one.client, [{ topic: 'orders', id: 'a' }]);
    const watch = other.client.Watch({ topic: 'orders' });
    watch.on('error', () => {});
    await until(() => catchUp.mock.calls.length > 0, 'the start');
    watch.cancel();
    const ended = ({ msg, method }: Record<string, unknown>): boolean =>
      msg === 'call ended' && String(method).endsWith('/Watch');
    await until(() => other.log.some(ended), 'the end of the watch');
  });

  test('a stream that can not be joined again does not hold up the end', async () => {
    const timeOfEnd = async (): Promise<number> => {
      const settings = jetstreamSettings(servers);
      const { app, log } = await runService(settings);
      const { api } = app.get<{ api: StreamApi }>(EventRepository);
      const connection = await servers[0].connect();
      await connection.request(`$JS.API.STREAM.DELETE.${settings.FEED_NATS_STREAM}`, undefined, {
        timeout: 30_000,
      });
      await connection.close();
      api.info = () => Promise.reject(new RefusedError(10_100, 'refused by the test'));
      await until(() => JSON.stringify(log).includes("can't be used"), 'a word of it', 20_000);
      const start = performance.now();
      await within(app.close(), 'the end');
      return performance.now() - start;
    };
    // NATS and this process may stand still.
    expect(await upToThrice(timeOfEnd, (found) => found < 4_000)).toBeLessThan(4_000);
  });

  test.each([
    ['nobody can see whether it flushes', {}, /FEED_NATS_MONITOR_URLS.*FEED_NATS_FLUSH=vouched/],
    [
      'it does not flush',
      { FEED_NATS_MONITOR_URLS: 'MONITOR' },
      /do not flush.*sync_interval: always.*config\.jetstream\.merge/,
    ],
    [
      'the stream needs three servers',
      { FEED_NATS_REPLICAS: '3', FEED_NATS_FLUSH: 'vouched' },
      /replicas/,
    ],
    [
      'its largest message is too small',
      { FEED_NATS_FLUSH: 'vouched', FEED_MAX_EVENT_BYTES: '3MiB' },
      /max_payload/,
    ],
  ])('a start is refused where %s, with what to set', async (_why, more, message) => {
    const [small] = await NatsServer.start(1, { jetstream: '', maxPayload: '2MB' });
    onTestFinished(() => small.remove());
    const settings: Record<string, string> = { ...jetstreamSettings([small]), ...more };
    delete settings.FEED_DURABILITY;
    if (settings.FEED_NATS_MONITOR_URLS) settings.FEED_NATS_MONITOR_URLS = small.monitorUrl;
    const service = ServiceProcess.spawn(settings);
    expect(await service.ended()).toEqual({ code: 78, signal: null });
    expect(service.output.join('')).toMatch(message);
  });

  test('a server that flushes makes acknowledgements mean that', async () => {
    const [flushing] = await NatsServer.start(1);
    onTestFinished(() => flushing.remove());
    const settings: Record<string, string> = {
      ...jetstreamSettings([flushing]),
      FEED_NATS_MONITOR_URLS: flushing.monitorUrl,
    };
    delete settings.FEED_DURABILITY;
    const { client } = await runService(settings);
    expect((await upload(client, numbered(0, 1))).result?.durability).toBe(2);
    const vouched = { ...settings, FEED_NATS_MONITOR_URLS: '', FEED_NATS_FLUSH: 'vouched' };
    const { client: other, log } = await runService(vouched);
    expect((await upload(other, numbered(1, 1))).result?.durability).toBe(2);
    expect(JSON.stringify(log)).toContain('vouched');
    expect(JSON.stringify(log)).toContain('no limit of bytes');
  });

  test('a start without NATS waits for it, says so, and ends at a signal', async () => {
    const [late] = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => late.remove());
    await late.kill();
    const settings = jetstreamSettings([late]);
    const waiting = ServiceProcess.spawn(settings);
    await until(() => waiting.output.join('').includes('waiting for NATS'), 'a word of it');
    expect(waiting.output.join('')).not.toContain('listens');
    const ending = ServiceProcess.spawn(settings);
    await until(() => ending.output.join('').includes('waiting for NATS'), 'a word of it');
    expect((await ending.kill('SIGTERM')).code).toBe(0);
    late.run();
    await waiting.ready();
    expect((await upload(waiting.connect(), numbered(0, 1))).result?.received).toBe(1);
  });

  test('cut off from NATS, uploads end with STORE_UNAVAILABLE and what is stored, and watches go on later', async () => {
    const [cut] = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => cut.remove());
    const { client, log, httpAddress } = await runService({
      ...jetstreamSettings([cut]),
      FEED_NATS_PATIENCE: '5s',
    });
    const watch = watching(client);
    const outcome = Promise.withResolvers<{ error?: ServiceError; result?: UploadResult }>();
    const call = client.UploadEvents((error, result) =>
      outcome.resolve(error ? { error } : { result }),
    );
    for (const event of numbered(0, 3)) call.write(event);
    await until(() => watch.events.length === 3, 'the first events');
    await cut.kill();
    for (const event of numbered(3, 3)) call.write(event);
    call.end();
    const { error } = await within(outcome.promise, 'the end of the upload');
    expect(error?.code).toBe(status.UNAVAILABLE);
    expect(errorInfo(error!.metadata)).toMatchObject({
      reason: 'STORE_UNAVAILABLE',
      metadata: { received: '3' },
    });
    expect((await fetch(`http://${httpAddress}/readyz`)).status).toBe(200);
    cut.run();
    await cut.ready();
    // An upload would wait for that, but not longer than for FEED_NATS_PATIENCE.
    await until(() => JSON.stringify(log).includes('connected to NATS again'), 'a connection');
    expect((await upload(client, numbered(0, 8))).result).toMatchObject({
      received: 8,
      duplicates: 3,
    });
    await until(() => watch.events.length === 8, 'the events on the watch that was open');
    expect(ids(watch.events)).toEqual(Array.from({ length: 8 }, (_, i) => String(i)));
    expect(JSON.stringify(log)).toContain('the connection to NATS is lost');
  });

  test.each(['a topic that it knows', 'a new topic'])(
    'a shutdown while NATS stands still is one that ends well: an upload to %s learns what is stored',
    async (what) => {
      const [held] = await NatsServer.start(1, { jetstream: '' });
      onTestFinished(() => held.remove());
      const service = await ServiceProcess.start({
        ...jetstreamSettings([held]),
        FEED_NATS_PATIENCE: '10m',
        FEED_DRAIN_TIMEOUT: '100ms',
        FEED_DRAIN_SPREAD: '0s',
      });
      const client = service.connect();
      const watch = watching(client);
      await upload(client, numbered(0, 1));
      await until(() => watch.events.length === 1, 'the first event');
      await held.halt();
      onTestFinished(() => held.signal('SIGCONT'));
      const topic = what === 'a new topic' ? 'new' : 'orders';
      const uploading = upload(client, [{ topic, id: 'a' }]);
      await until(async () => {
        const { json } = await ask(service.httpAddress, '/v1/streams');
        return JSON.stringify(json).includes('UploadEvents');
      }, 'the upload');
      const [{ error }, exit] = await Promise.all([uploading, service.kill('SIGTERM')]);
      expect(errorInfo(error!.metadata)).toMatchObject({
        reason: 'STORE_UNAVAILABLE',
        metadata: { received: '0' },
      });
      expect(errorInfo((await watch.ended).metadata)?.reason).toBe('DRAINING');
      expect(exit).toEqual({ code: 0, signal: null });
    },
  );

  test('an upload that an operator ends while NATS does not answer for its events has no `received`, and they are stored later', async () => {
    const [held] = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => held.remove());
    const { app, client, grpcAddress, httpAddress } = await runService({
      ...jetstreamSettings([held]),
      FEED_NATS_PATIENCE: '2s',
    });
    const watch = watching(client);
    await upload(client, numbered(0, 1)); // The first commit after a start would be the epoch's record alone.
    await until(() => watch.events.length === 1, 'the event before');
    const feed = connectFeed(grpcAddress);
    onTestFinished(() => feed.close());
    const admin = connectAdmin(grpcAddress);
    await held.halt();
    onTestFinished(() => held.signal('SIGCONT'));
    const pending = (count: number) => () =>
      [...app.get(LiveCalls)].filter((call) => call.pending > 0).length === count;
    const uploading = feed.upload('orders', ['a', 'b', 'c']).catch((error: unknown) => error);
    await until(pending(1), 'the upload, whose events are the next commit');
    const posting = ask(httpAddress, '/v1/events?topic=orders', {
      method: 'POST',
      headers: { 'content-type': 'text/plain' },
      body: 'd\ne',
    });
    await until(pending(2), 'the upload over HTTP');
    for (const { id, method } of await admin.listStreams())
      if (method.endsWith('/UploadEvents')) await admin.endStream(id);
    const error = await within(uploading, 'the end of the upload');
    expect(error).toMatchObject({ reason: 'ENDED_BY_OPERATOR', stored: 0, unknown: 3 });
    const { status: code, json } = await within(posting, 'the answer over HTTP');
    expect(code).toBe(409);
    expect(json).toMatchObject({ reason: 'ENDED_BY_OPERATOR' });
    expect(json).not.toHaveProperty('received');
    held.signal('SIGCONT');
    await until(
      () => watch.events.length >= 4,
      'events that are stored after their upload has ended',
    );
  });
});

describe.skipIf(!NATS_SERVER)('on a cluster of three', () => {
  /** How long (milliseconds) starts are tried: a server has three seconds to say that it flushes, and may be silent on a busy machine. */
  const STARTS_WITHIN = 90_000;
  let servers: NatsServer[];
  beforeAll(async () => void (servers = await NatsServer.start(3)));
  afterAll(() => remove(servers));

  test('that flushes, an acknowledgement means DURABILITY_REPLICATED', async () => {
    const settings: Record<string, string> = {
      ...jetstreamSettings(servers),
      FEED_NATS_MONITOR_URLS: servers.map(({ monitorUrl }) => monitorUrl).join(),
    };
    delete settings.FEED_DURABILITY;
    const { client } = await eventually(() => runService(settings), STARTS_WITHIN);
    expect((await upload(client, numbered(0, 3))).result).toMatchObject({
      received: 3,
      durability: 3,
    });
    expect(ids(await take(client, { topic: 'orders', position: 1 }, 3))).toEqual(['0', '1', '2']);
  });

  test('all servers are asked, by the system account or at their monitoring URLs', async () => {
    const connectToSystem = () => connect({ servers: servers[0].url, ...SYSTEM });
    const none = { monitorUrls: [], connectToSystem: undefined, isVouched: false };
    // A server has three seconds for its answer.
    await eventually(async () =>
      expect(await findDurability(3, { ...none, connectToSystem })).toMatchObject({
        durability: 'replicated',
        reason: 'all 3 NATS servers flush before they answer',
      }),
    );
    const monitorUrls = servers.map(({ monitorUrl }) => monitorUrl);
    await eventually(async () => {
      const { servers: found } = await findDurability(3, { ...none, monitorUrls });
      expect(found).toEqual({ flushing: ['n1', 'n2', 'n3'], silent: [] });
    });
    const ordinary = () => connect({ servers: servers[0].url });
    await expect(findDurability(3, { ...none, connectToSystem: ordinary })).rejects.toThrow(
      SetupError,
    );
  });

  test.each(['a follower', 'the leader'])(
    'while %s is down, a replica starts if an earlier start has seen that it flushes',
    async (which) => {
      const monitorUrls = servers.map(({ monitorUrl }) => monitorUrl).join();
      const settings: Record<string, string> = {
        ...jetstreamSettings(servers),
        FEED_NATS_MONITOR_URLS: monitorUrls,
      };
      delete settings.FEED_DURABILITY;
      const unseen = { ...settings, FEED_NATS_STREAM: `${settings.FEED_NATS_STREAM}_NEW` };
      await eventually(() => runService(settings), STARTS_WITHIN);
      const leader = await leaderOf(servers);
      const down = which === 'the leader' ? leader : servers.find((each) => each !== leader)!;
      await down.kill();
      onTestFinished(async () => {
        down.run();
        await down.ready();
      });
      // Another server may be silent, too, on a busy machine, or an election take longer than a start waits for it.
      const { client } = await eventually(async () => {
        const started = await runService(settings);
        expect(started.log.map(({ msg }) => msg)).toContainEqual(
          `2 of 3 NATS servers flush before they answer, and ${down.name} did when last asked`,
        );
        return started;
      }, STARTS_WITHIN);
      const { result } = await upload(client, numbered(0, 3));
      expect(result).toMatchObject({ received: 3, durability: 3 });
      const refusal = new RegExp(`nobody knows whether the NATS server ${down.name} flushes`);
      // Another server may be silent, too: the message then names both.
      const message = await eventually(async () => {
        const { text, hasStarted } = await runService(unseen).then(
          () => ({ text: '', hasStarted: true }),
          (error: unknown) => ({ text: String(error), hasStarted: false }),
        );
        if (!hasStarted) expect(text).toMatch(refusal);
        return text;
      }, STARTS_WITHIN);
      expect(message).toMatch(refusal);
    },
    4 * STARTS_WITHIN,
  );
});
