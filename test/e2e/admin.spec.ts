import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { type ServiceError, status } from '@grpc/grpc-js';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requireAdministrator } from '../../src/feed/administrator.js';
import { ANYONE } from '../../src/feed/caller.js';
import { draining } from '../../src/feed/errors.js';
import { LiveCalls } from '../../src/feed/live-calls.js';
import type { Event, StartPosition } from '../../src/gen/feed/v1/feed.js';
import { connectAdmin } from '../support/admin.js';
import { connect, errorInfo, failure, type FeedClient, take, upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { RawClient } from '../support/raw-client.js';
import { type Running, runService, temporaryDirectory } from '../support/service.js';
import { bearer, Issuer } from '../support/tokens.js';
import { eventually, until, within } from '../support/wait.js';

const events = (topic: string, ...bodies: string[]): Partial<Event>[] =>
  bodies.map((body) => ({ topic, body }));

/** Runs a promise that must fail, and returns how. */
async function refusal(promise: Promise<unknown>): Promise<{ code: number; reason?: string }> {
  const error = await promise.then(
    () => undefined,
    (cause: ServiceError) => cause,
  );
  if (!error) throw new Error('it was not refused');
  return { code: error.code, reason: errorInfo(error.metadata)?.reason };
}

const BODY = 'x'.repeat(100_000);

const forbidden = { code: status.PERMISSION_DENIED, reason: 'TOPIC_FORBIDDEN' };

/** Opens a watch that the test ends. */
function watching(client: FeedClient, topic: string, position?: StartPosition) {
  const call = client.Watch({ topic, position });
  const seen: Event[] = [];
  const began = new Promise((resolve) => call.on('metadata', resolve));
  const ended = new Promise<ServiceError>((resolve) => call.on('error', resolve));
  call.on('data', (event: Event) => seen.push(event));
  onTestFinished(() => call.cancel());
  return { call, seen, began, ended };
}

/** Stores more events of `orders` than a watch can be sent while its client reads nothing. */
async function fillLinkOf({ client }: Running): Promise<void> {
  const { result } = await upload(client, events('orders', ...Array<string>(100).fill(BODY)));
  expect(result!.received).toBe(100);
}

describe('FeedAdmin', () => {
  test.each([{ FEED_ENGINE: 'lmdb' }, { FEED_ENGINE: 'memory' }])(
    'shows topics: what they hold, page by page and by prefix (%j)',
    async (settings) => {
      const { client, grpcAddress } = await runService(settings);
      const admin = connectAdmin(grpcAddress);
      expect(await admin.listTopics()).toMatchObject({ topics: [], nextPageToken: '' });

      const before = Date.now();
      await upload(client, events('orders.eu', 'a'));
      const { result } = await upload(client, [
        ...events('orders.eu', 'bb', 'ccc'),
        ...events('orders.us', 'd'),
        ...events('audit', 'e'),
      ]);
      expect(result!.received).toBe(4);
      const watch = watching(client, 'orders.eu');
      await watch.began;
      const { topic, replica } = await eventually(async () => {
        const answer = await admin.getTopic('orders.eu');
        expect(answer.topic!.watches).toBe(1);
        return answer;
      });
      expect(replica).toMatch(new RegExp(`^${hostname()}/[0-9a-f]{6}$`));
      expect(topic).toMatchObject({ topic: 'orders.eu', events: 3 });
      const stored = await take(client, { topic: 'orders.eu', position: 1 }, 3);
      expect(topic!.oldest!.cursor).toBe(stored[0].cursor);
      expect(topic!.newest!.cursor).toBe(stored[2].cursor);
      for (const { storedAt } of [topic!.oldest!, topic!.newest!]) {
        const time = storedAt!.seconds * 1_000 + storedAt!.nanos / 1e6;
        expect(time).toBeGreaterThanOrEqual(before);
        expect(time).toBeLessThanOrEqual(Date.now());
      }
      expect(topic!.bytes).toBeGreaterThan(3 * 40);

      const all = await eventually(async () => {
        const answer = await admin.listTopics();
        // The watch that take() has cancelled may be open for a moment.
        expect(answer.topics[1].watches).toBe(1);
        return answer;
      });
      expect(all.topics.map((one) => [one.topic, one.events])).toEqual([
        ['audit', 1],
        ['orders.eu', 3],
        ['orders.us', 1],
      ]);
      expect(all.topics[1]).toEqual(topic);
      const first = await admin.listTopics({ prefix: 'orders.', pageSize: 1 });
      expect(first.topics.map((one) => one.topic)).toEqual(['orders.eu']);
      const { nextPageToken: pageToken } = first;
      const second = await admin.listTopics({ prefix: 'orders.', pageSize: 1, pageToken });
      expect(second.topics.map((one) => one.topic)).toEqual(['orders.us']);

      expect((await admin.getTopic('nothing')).topic).toEqual({
        topic: 'nothing',
        events: 0,
        bytes: 0,
        oldest: null,
        newest: null,
        watches: 0,
      });
    },
  );

  test('refuses a topic, a prefix and a token that are none', async () => {
    const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    const admin = connectAdmin(grpcAddress);
    const invalid = (reason: string) => ({ code: status.INVALID_ARGUMENT, reason });
    expect(await refusal(admin.getTopic('a b'))).toEqual(invalid('TOPIC_INVALID'));
    expect(await refusal(admin.deleteTopic(''))).toEqual(invalid('TOPIC_INVALID'));
    for (const prefix of ['a b', '.', 'a..', 'a*', 'x'.repeat(201)])
      expect(await refusal(admin.listTopics({ prefix }))).toEqual(invalid('TOPIC_INVALID'));
    expect(await refusal(admin.listTopics({ pageToken: 'a b' }))).toEqual(
      invalid('REQUEST_INVALID'),
    );
  });

  test.each([
    ['ListTopics', '0a01ff'],
    ['ListTopics', '1a01ff'],
    ['GetTopic', '0a02c328'],
    ['DeleteTopic', '0a01ff'],
    ['EndStream', '0a01ff'],
    ['GetTopic', '0a05ff'],
    ['GetTopic', '0b0c'],
    // Fields of another wire type, whose bytes protobuf.js takes for something else: a page of 2, the topic `Pa`.
    ['ListTopics', '12022801'],
    ['DeleteTopic', '08025061'],
  ])('%s refuses a malformed request (%s)', async (method, message) => {
    const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    const raw = await RawClient.connect(grpcAddress);
    const call = raw.open(method, { ':path': `/feed.v1.FeedAdmin/${method}` }).drop();
    call.send(Buffer.from(message, 'hex')).stream.end();
    const trailers = (await call.trailers)!;
    expect(trailers['grpc-status']).toBe(String(status.INVALID_ARGUMENT));
    const details = Buffer.from(String(trailers['grpc-status-details-bin']), 'base64');
    expect(details.toString('latin1')).toContain('REQUEST_INVALID');
    raw.close();
  });

  test('leaves out fields that a request does not have, whatever they hold', async () => {
    const { client, grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    await upload(client, events('a', 'one'));
    const raw = await RawClient.connect(grpcAddress);
    const call = raw.open('GetTopic', { ':path': '/feed.v1.FeedAdmin/GetTopic' }).drop();
    // The topic `a`, and a field 2 of bytes, which a later version may have.
    call.send(Buffer.from('0a01611201ff', 'hex')).stream.end();
    expect((await call.trailers)!['grpc-status']).toBe('0');
    raw.close();
  });

  test('deletes a topic: a watch that is overtaken is told, others go on, and what comes later is kept', async () => {
    const service = await runService({ FEED_ENGINE: 'lmdb', FEED_DURABILITY: 'none' });
    const { client, grpcAddress } = service;
    const admin = connectAdmin(grpcAddress);
    await upload(client, events('audit', 'other'));
    const body = 'x'.repeat(10_000);
    const bulk = Array.from({ length: 400 }, () => body);
    await upload(client, events('orders', ...bulk));
    const slow = watching(client, 'orders', 1);
    slow.call.once('data', () => slow.call.pause());
    await until(() => slow.seen.length > 0, 'the first event');
    // More than the service keeps in memory, so that the slow watch has to read what is removed.
    for (let i = 0; i < 10; i++) await upload(client, events('orders', ...bulk));
    const live = watching(client, 'orders');
    await live.began;

    const { removed } = await admin.deleteTopic('orders');
    expect(removed).toMatchObject({ topic: 'orders', events: 4_400 });
    expect((await admin.getTopic('orders')).topic).toMatchObject({ events: 0, bytes: 0 });
    expect((await admin.listTopics()).topics.map(({ topic }) => topic)).toEqual(['audit']);
    const line = await eventually(() => {
      const found = service.log.find(({ context }) => context === 'admin');
      expect(found).toBeDefined();
      return found;
    });
    expect(line).toMatchObject({ topic: 'orders', events: 4_400 });

    slow.call.resume();
    const error = await within(slow.ended, 'the end of the slow watch');
    expect(errorInfo(error.metadata)!.reason).toBe('CURSOR_EXPIRED');
    await upload(client, events('orders', 'new'));
    await until(() => live.seen.length === 1, 'the new event');
    expect(live.seen[0].body).toBe('new');
    expect((await admin.getTopic('orders')).topic).toMatchObject({ events: 1 });
    const [kept] = await take(client, { topic: 'audit', position: 1 }, 1);
    expect(kept.body).toBe('other');
    const again = await failure(
      client.Watch({ topic: 'orders', afterCursor: slow.seen.at(-1)!.cursor }),
    );
    expect(errorInfo(again.metadata)!.reason).toBe('CURSOR_EXPIRED');
  });

  test('lists open streams: what they are, and how far behind', async () => {
    const { app, client, grpcAddress } = await runService({ FEED_ENGINE: 'lmdb' });
    const admin = connectAdmin(grpcAddress);
    expect(await admin.listStreams()).toEqual([]);
    const body = 'x'.repeat(10_000);
    await upload(client, events('orders', ...Array.from({ length: 600 }, () => body)));
    const slow = watching(client, 'orders', 1);
    slow.call.once('data', () => slow.call.pause());
    await slow.began;
    const live = watching(client, 'orders');
    await live.began;
    const open = client.UploadEvents(() => {});
    open.on('error', () => {});
    open.write({ topic: 'audit', body: 'one' });
    await until(() => [...app.get(LiveCalls)].length === 3, 'the upload');
    const chat = client.Chat();
    chat.on('error', () => {});
    chat.write({ room: 'kitchen', text: 'hi' });
    onTestFinished(() => (open.cancel(), chat.cancel()));

    const streams = await eventually(async () => {
      const found = await admin.listStreams();
      expect(found.map(({ topics }) => topics.join())).toEqual([
        'orders',
        'orders',
        'audit',
        'kitchen',
      ]);
      expect(found[0].events).toBeGreaterThan(0);
      expect(found[0].events + found[0].behind!).toBe(600);
      expect(found[0].behind).toBeGreaterThan(50);
      expect(found[2]).toMatchObject({ events: 1 });
      return found;
    });
    expect(streams.map(({ method }) => method.slice(method.lastIndexOf('/') + 1))).toEqual([
      'Watch',
      'Watch',
      'UploadEvents',
      'Chat',
    ]);
    const [, ofLive, ofUpload] = streams;
    expect(ofLive).toMatchObject({ principal: '', events: 0, bytes: 0, behind: 0 });
    expect(ofUpload.behind).toBeUndefined();
    for (const { id, peer, replica, startedAt } of streams) {
      expect(id).toMatch(/^[0-9a-f]{6}-\d+$/);
      expect(replica).toBe(`${hostname()}/${id.slice(0, 6)}`);
      expect(peer).toMatch(/^127\.0\.0\.1:\d+$/);
      expect(Math.abs(Date.now() / 1_000 - startedAt!.seconds)).toBeLessThan(60);
    }
    expect(new Set(streams.map(({ id }) => id)).size).toBe(4);
  });

  test('ends a stream of each kind, and no other', async () => {
    const service = await runService({ FEED_ENGINE: 'memory' });
    const { client, grpcAddress } = service;
    const admin = connectAdmin(grpcAddress);
    await upload(client, events('orders', 'a'));
    const watch = watching(client, 'orders', 1);
    await watch.began;
    const other = watching(client, 'orders', 1);
    await other.began;
    const uploaded = new Promise<ServiceError | null>((resolve) => {
      const call = client.UploadEvents((error) => resolve(error));
      call.on('error', () => {});
      call.write({ topic: 'audit', body: 'one' });
    });
    await until(() => [...service.app.get(LiveCalls)].length === 3, 'the upload');
    const chat = client.Chat();
    chat.write({ room: 'kitchen', text: '' });
    const chatted = failure(chat);
    await until(() => watch.seen.length === 1 && other.seen.length === 1, 'the event');
    const streams = await eventually(async () => {
      const found = await admin.listStreams();
      expect(found.map(({ topics }) => topics.join())).toEqual([
        'orders',
        'orders',
        'audit',
        'kitchen',
      ]);
      return found;
    });
    const ids = streams.map(({ id }) => id);

    const { ended } = await admin.endStream(ids[0]);
    expect(ended).toMatchObject({ id: ids[0], topics: ['orders'], events: 1 });
    const error = await within(watch.ended, 'the end of the watch');
    expect(error.code).toBe(status.ABORTED);
    expect(errorInfo(error.metadata)).toMatchObject({
      reason: 'ENDED_BY_OPERATOR',
      metadata: { cursor: watch.seen[0].cursor },
    });
    await admin.endStream(ids[2]);
    const failed = await within(uploaded, 'the end of the upload');
    expect(errorInfo(failed!.metadata)).toMatchObject({
      reason: 'ENDED_BY_OPERATOR',
      metadata: { received: '1' },
    });
    await admin.endStream(ids[3]);
    expect((await within(chatted, 'the end of the chat')).code).toBe(status.ABORTED);

    await eventually(async () => expect(await admin.listStreams()).toHaveLength(1));
    const unknown = { code: status.NOT_FOUND, reason: 'STREAM_UNKNOWN' };
    const long = '😀'.repeat(15_000); // Its echo in a status would be more headers than a client takes.
    for (const id of [ids[0], '', '1', `000000-${ids[1].split('-')[1]}`, long])
      expect(await refusal(admin.endStream(id))).toEqual(unknown);
    await upload(client, events('orders', 'b'));
    await until(() => other.seen.length === 2, 'the event after the ends');
    const lines = service.log.filter(({ context }) => context === 'admin');
    expect(lines.map(({ ended: one }) => (one as { id: string }).id)).toEqual([
      ids[0],
      ids[2],
      ids[3],
    ]);
  });

  test('ends no stream that has ended and only waits for its client to read', async () => {
    const service = await runService({ FEED_ENGINE: 'memory' });
    const admin = connectAdmin(service.grpcAddress);
    await fillLinkOf(service);
    const watch = watching(service.client, 'orders', 1);
    await watch.began;
    watch.call.pause();
    await until(() => [...service.app.get(LiveCalls)].length === 1, 'the watch alone');
    const [{ id }] = await admin.listStreams();
    const [call] = service.app.get(LiveCalls);
    call.abort(draining());
    expect(await refusal(admin.endStream(id))).toMatchObject({ reason: 'STREAM_UNKNOWN' });
    expect(service.app.get(LiveCalls).has(call)).toBe(true);
    expect(service.log.filter(({ context }) => context === 'admin')).toEqual([]);
  });
});

describe('who may administer', () => {
  test('with a policy: whoever has the verb, and only their topics', async () => {
    const issuer = await Issuer.create();
    const policy = join(temporaryDirectory(), 'policy.yaml');
    writeFileSync(
      policy,
      `
rules:
  - { principals: [root], verbs: [admin], topics: [">"] }
  - { principals: [ann], verbs: [admin], topics: ["orders.>"] }
  - { principals: [ann, bob], verbs: [watch, upload, chat], topics: [">"] }
`,
    );
    const settings = { FEED_ENGINE: 'memory', ...issuer.settings(), FEED_POLICY_FILE: policy };
    const service = await runService(settings);
    const tokenOf = async (sub: string) => bearer(await issuer.token({ sub }));
    const as = async (sub: string) => connectAdmin(service.grpcAddress, await tokenOf(sub));
    const client = service.client as unknown as {
      UploadEvents(
        metadata: unknown,
        callback: (error: unknown) => void,
      ): {
        write(event: object): void;
        end(): void;
      };
      Watch(request: object, metadata: unknown): ReturnType<FeedClient['Watch']>;
    };
    await new Promise<void>((resolve, reject) => {
      void tokenOf('bob').then((metadata) => {
        const call = client.UploadEvents(metadata, (error) => (error ? reject(error) : resolve()));
        for (const topic of ['orders.a', 'orders.b', 'audit']) call.write({ topic });
        call.end();
      });
    });
    const watches = [];
    for (const topic of ['orders.a', 'audit']) {
      const call = client.Watch({ topic }, await tokenOf('bob'));
      call.on('error', () => {});
      onTestFinished(() => call.cancel());
      await new Promise((resolve) => call.on('metadata', resolve));
      watches.push(call);
    }

    const [root, ann, bob] = [await as('root'), await as('ann'), await as('bob')];
    for (const ask of [
      () => bob.listTopics(),
      () => bob.getTopic('audit'),
      () => bob.deleteTopic('audit'),
      () => bob.listStreams(),
      () => bob.endStream('x'),
      () => ann.getTopic('audit'),
      () => ann.deleteTopic('audit'),
      () => ann.getTopic('orders'),
    ])
      expect(await refusal(ask())).toEqual(forbidden);
    const namesOf = async (admin: typeof ann) =>
      (await admin.listTopics()).topics.map(({ topic }) => topic);
    expect(await namesOf(root)).toEqual(['audit', 'orders.a', 'orders.b']);
    expect(await namesOf(ann)).toEqual(['orders.a', 'orders.b']);

    const all = await root.listStreams();
    expect(all.map(({ topics, principal }) => [topics[0], principal])).toEqual([
      ['orders.a', 'bob'],
      ['audit', 'bob'],
    ]);
    expect((await ann.listStreams()).map(({ id }) => id)).toEqual([all[0].id]);
    const unknown = { code: status.NOT_FOUND, reason: 'STREAM_UNKNOWN' };
    expect(await refusal(ann.endStream(all[1].id))).toEqual(unknown);
    expect((await ann.endStream(all[0].id)).ended!.id).toBe(all[0].id);
    // Page by page, neither the topics nor the tokens name a topic that the administrator may not see.
    const pages = [];
    let pageToken = '';
    do {
      const page = await ann.listTopics({ pageSize: 1, pageToken });
      pages.push([page.topics.map(({ topic }) => topic), page.nextPageToken]);
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(pages).toEqual([
      [['orders.a'], 'orders.a'],
      [['orders.b'], 'orders.b'],
      [[], ''],
    ]);
    await ann.deleteTopic('orders.b');
    expect(await namesOf(root)).toEqual(['audit', 'orders.a']);
    const lines = service.log.filter(({ context }) => context === 'admin');
    expect(lines.map(({ principal }) => principal)).toEqual(['ann', 'ann']);
    const calls = service.log.filter(({ method }) => method === '/feed.v1.FeedAdmin/DeleteTopic');
    expect(calls.map(({ principal, topic, status: code }) => [principal, topic, code])).toEqual([
      ['bob', 'audit', 'PERMISSION_DENIED'],
      ['ann', 'audit', 'PERMISSION_DENIED'],
      ['ann', 'orders.b', 'OK'],
    ]);

    // A pattern of one token is not all topics, so a chat without a room is not shown by it.
    expect((await root.listStreams()).length).toBe(1);
  });

  const outside = Object.values(networkInterfaces())
    .flat()
    .find((one) => one && one.family === 'IPv4' && !one.internal)?.address;
  if (outside === undefined)
    process.stderr.write(
      'left out: FeedAdmin from another address, because this machine has none\n',
    );

  test.skipIf(outside === undefined)(
    'without authentication: clients of the same machine, and nobody who comes from elsewhere',
    async () => {
      const settings = { FEED_ENGINE: 'memory', FEED_GRPC_ADDRESS: '0.0.0.0:0' };
      const { grpcAddress } = await runService({ ...settings, FEED_INSECURE: 'allow' });
      const port = grpcAddress.slice(grpcAddress.lastIndexOf(':') + 1);
      const near = connectAdmin(`127.0.0.1:${port}`);
      const far = connectAdmin(`${outside}:${port}`);
      for (const ask of [
        () => far.listTopics(),
        () => far.getTopic('t'),
        () => far.deleteTopic('t'),
        () => far.listStreams(),
        () => far.endStream('x'),
      ])
        expect(await refusal(ask())).toEqual(forbidden);
      expect((await near.listTopics()).topics).toEqual([]);
      const { error } = await upload(connect(`${outside}:${port}`), events('t', 'a'));
      expect(error).toBeUndefined();
    },
  );

  test.each([
    ['127.0.0.1:50312', true],
    ['::1:50312', true],
    ['[::1]:50312', true],
    ['::ffff:127.0.0.1:50312', true],
    ['127.0.0.6:50312', false], // Istio's sidecar, for a client somewhere else.
    ['10.0.0.1:50312', false],
    ['::2:50312', false],
    ['', false],
    ['unknown', false],
  ])('a caller without a name at %s: %s', (peer, may) => {
    const ask = () => requireAdministrator({ caller: ANYONE, peer });
    if (may) expect(ask).not.toThrow();
    else expect(ask).toThrow('clients of the same machine');
  });
});

describe.skipIf(!NATS_SERVER)('FeedAdmin of two replicas', () => {
  test('topics are the same on both, streams are those of the one that was asked', async () => {
    const servers = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => servers[0].remove());
    const settings = jetstreamSettings(servers);
    const [one, other] = [await runService(settings), await runService(settings)];
    const [ofOne, ofOther] = [one, other].map(({ grpcAddress }) => connectAdmin(grpcAddress));
    await upload(one.client, [...events('orders.a', 'a', 'b'), ...events('orders.b', 'c')]);
    const watch = watching(one.client, 'orders.a', 1);
    await until(() => watch.seen.length === 2, 'the events');
    for (const admin of [ofOne, ofOther]) {
      const { topics } = await admin.listTopics({ prefix: 'orders.' });
      expect(topics.map(({ topic, events: count }) => [topic, count])).toEqual([
        ['orders.a', 2],
        ['orders.b', 1],
      ]);
      expect(topics[0].newest!.cursor).toBe(watch.seen[1].cursor);
    }
    const [stream] = await ofOne.listStreams();
    expect(stream).toMatchObject({ topics: ['orders.a'], behind: 0 });
    expect(await ofOther.listStreams()).toEqual([]);
    expect((await refusal(ofOther.endStream(stream.id))).reason).toBe('STREAM_UNKNOWN');

    expect((await ofOther.deleteTopic('orders.a')).removed!.events).toBe(2);
    for (const admin of [ofOne, ofOther]) {
      expect((await admin.listTopics()).topics.map(({ topic }) => topic)).toEqual(['orders.b']);
      expect((await admin.getTopic('orders.a')).topic!.events).toBe(0);
    }
    await upload(other.client, events('orders.a', 'd'));
    await until(() => watch.seen.length === 3, 'the event after the removal');
    expect((await ofOne.getTopic('orders.a')).topic).toMatchObject({ events: 1, watches: 1 });
    await ofOne.endStream(stream.id);
    expect((await within(watch.ended, 'its end')).code).toBe(status.ABORTED);
  });

  test('while NATS does not answer, streams are listed and ended, without how far behind they are', async () => {
    const servers = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => servers[0].remove());
    const service = await runService(jetstreamSettings(servers));
    const admin = connectAdmin(service.grpcAddress);
    await fillLinkOf(service);
    const watch = watching(service.client, 'orders', 1);
    await watch.began;
    watch.call.pause();
    const behind = async (): Promise<unknown> => (await admin.listStreams())[0].behind;
    await until(async () => Number(await behind()) > 0, 'a watch that is behind');
    await servers[0].halt();
    onTestFinished(() => servers[0].signal('SIGCONT'));
    const [{ id, ...stream }] = await within(admin.listStreams(), 'the list');
    expect(stream).toMatchObject({ topics: ['orders'] });
    expect(stream.behind).toBeUndefined();
    const [call] = service.app.get(LiveCalls);
    const ending = admin.endStream(id);
    await within(once(call.signal, 'abort'), 'the end of the watch');
    expect((await within(ending, 'the answer')).ended).toMatchObject({ id, topics: ['orders'] });
  });
});
