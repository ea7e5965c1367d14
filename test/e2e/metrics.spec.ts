import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect as connectTcp, type Socket } from 'node:net';
import { status } from '@grpc/grpc-js';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { Watches } from '../../src/feed/watch.js';
import { MetricsPage } from '../../src/metrics/metrics-page.js';
import { frame } from '../../src/wire/frames.js';
import { codec, failure, take, upload } from '../support/client.js';
import { Authority } from '../support/certificates.js';
import { type Page, scrape } from '../support/metrics.js';
import {
  ENGINES,
  engineForTests,
  jetstreamSettings,
  NATS_SERVER,
  NatsServer,
} from '../support/nats.js';
import { RawClient } from '../support/raw-client.js';
import {
  type Running,
  runService,
  ServiceProcess,
  temporaryDirectory,
} from '../support/service.js';
import { Issuer } from '../support/tokens.js';
import { eventually, until } from '../support/wait.js';
import { httpStatus } from '../tls/calls.js';

const { settings } = engineForTests();

const events = (topic: string, ...ids: string[]) =>
  ids.map((id) => ({ topic, id, body: 'x'.repeat(100) }));

/** Reads the page until an assertion about it holds. */
const eventuallyOn = <T>(address: string, assertion: (page: Page) => T): Promise<T> =>
  eventually(async () => assertion(await scrape(address)), undefined, 50);

describe('docs/metrics.md', () => {
  const page = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8');
  const rowsIn = (text: string) =>
    Array.from(
      text.matchAll(/^\| `(feed_\w+)` \| (\w+) \| (.*?) \| (.*?) \| (.*) \|$/gm),
      ([, name, type, labels, unit, help]) => ({ name, type, labels, unit, help }),
    );
  /** The rows that an engine has: those that stand behind "With the engine x" are that engine's alone. */
  const rowsOf = (engine: string) =>
    page
      .split(/^(?=With the engine|## )/m)
      .filter((part) => (/^With the engine (\w+)/.exec(part)?.[1] ?? engine) === engine)
      .flatMap(rowsIn);

  test.each(ENGINES)('has the metrics that a service has, and no other (%s)', async (engine) => {
    const service = await runService({ ...settings(engine), FEED_METRICS_TOPICS: 'orders' });
    await upload(service.client, events('orders', 'a'));
    const described = rowsOf(engine).map(({ name, type, labels, help }) => ({
      name,
      type,
      labels,
      help,
    }));
    const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1);
    // NATS may answer too late for a page.
    await eventuallyOn(service.httpAddress, ({ metrics }) => {
      const found = Array.from(metrics, ([name, { type, help, labels }]) => ({
        name,
        type,
        help,
        labels: [...labels].map((label) => `\`${label}\``).join(', '),
      }));
      expect(found.toSorted(byName)).toEqual(described.toSorted(byName));
    });
  });

  test('names have the prefix and the unit, as Prometheus wants it', () => {
    for (const { name, type, unit } of rowsIn(page)) {
      expect(name).toMatch(/^feed_[a-z_]+$/);
      expect(name.endsWith('_total')).toBe(type === 'counter');
      const base = name.replace(/_total$/, '');
      if (unit === 'seconds' || unit === 'Unix time') expect(base).toMatch(/_seconds$/);
      else if (unit === 'bytes') expect(base).toMatch(/_bytes$/);
      else expect(base).not.toMatch(/_(seconds|bytes|milliseconds)$/);
    }
  });
});

/** Opens a watch, and waits until it has its headers. */
async function watch({ client }: Running, topic: string) {
  const call = client.Watch({ topic, position: 1 });
  call.on('error', () => {});
  await once(call, 'metadata');
  return call;
}

describe.each(ENGINES)('on %s', (engine) => {
  const start = (more: Record<string, string> = {}) => runService({ ...settings(engine), ...more });

  test('events are counted on their way in and out, listed topics by themselves', async () => {
    const service = await start({ FEED_METRICS_TOPICS: 'orders, quiet' });
    const { client, httpAddress } = service;
    const call = await watch(service, 'orders');
    call.resume();
    await upload(client, [...events('orders', 'a', 'b'), ...events('users', 'c')]);
    await upload(client, events('orders', 'a', 'd'));
    await take(client, { topic: 'users', position: 1 }, 1);
    await eventuallyOn(httpAddress, (page) => {
      const of = (name: string, topic?: string) => page.value(name, topic ? { topic } : {});
      expect(of('feed_events_received_total', 'orders')).toBe(4);
      expect(of('feed_events_received_total', 'quiet')).toBe(0);
      expect(of('feed_events_received_total')).toBe(1);
      expect(of('feed_events_duplicate_total')).toBe(1);
      expect(of('feed_events_sent_total', 'orders')).toBe(3);
      expect(of('feed_events_sent_total')).toBe(1);
      // Framed, with a cursor: more than the body, and not twice as much.
      for (const [name, count] of [
        ['feed_events_received_bytes_total', 4],
        ['feed_events_sent_bytes_total', 3],
      ] as const) {
        expect(of(name, 'orders')! / count).toBeGreaterThan(120);
        expect(of(name, 'orders')! / count).toBeLessThan(240);
      }
      for (const name of ['publish_ack_seconds', 'commit_seconds', 'commit_bytes'])
        expect(of(`feed_${name}_count`)).toBeGreaterThanOrEqual(2);
      expect(of('feed_commit_bytes_sum')).toBeGreaterThan(4 * 120);
    });
    call.cancel();
  });

  test('a listed name that needs an escape is a label', async () => {
    const topic = 'say."hi"\\n';
    const service = await start({ FEED_METRICS_TOPICS: topic });
    await upload(service.client, events(topic, 'a'));
    const page = await (await fetch(`http://${service.httpAddress}/metrics`)).text();
    expect(page).toContain(String.raw`feed_events_received_total{topic="say.\"hi\"\\n"} 1`);
  });

  test('a delivery is timed from when its event came, for a watch that waited', async () => {
    const service = await start();
    const { client, httpAddress, app } = service;
    const call = await watch(service, 'orders');
    const { open } = app.get(Watches);
    let came = 0;
    call.on('data', () => came++);
    for (let i = 1; i <= 3; i++) {
      await until(() => [...open].every((each) => !each.isBehind(Infinity)), 'a watch that waits');
      await upload(client, events('orders', String(i)));
      await until(() => came === i, 'the event');
    }
    const page = await scrape(httpAddress);
    expect(page.value('feed_publish_delivery_seconds_count')).toBe(3);
    const [delivery, ack] = ['delivery', 'ack'].map((what) =>
      page.value(`feed_publish_${what}_seconds_sum`),
    );
    expect(delivery).toBeGreaterThan(0);
    expect(delivery).toBeLessThan(60);
    expect(ack).toBeGreaterThan(0);
    expect(page.value('feed_publish_ack_seconds_bucket', { le: '+Inf' })).toBe(3);
    // Each bucket has what is in the smaller ones, too.
    expect(page.value('feed_publish_ack_seconds_bucket', { le: '10' })).toBe(3);
    // What is already there when a watch begins is no delivery. Of sixteen, two would be timed.
    const late = Array.from({ length: 16 }, () =>
      take(client, { topic: 'orders', position: 1 }, 3),
    );
    await Promise.all(late);
    expect((await scrape(httpAddress)).value('feed_publish_delivery_seconds_count')).toBe(3);
    call.cancel();
  });

  test('a watch that does not read is behind, and no longer once it has read', async () => {
    const { client, grpcAddress, httpAddress } = await start();
    const raw = await RawClient.connect(grpcAddress);
    onTestFinished(() => raw.close());
    const { stream } = raw.open('Watch');
    stream.end(frame(codec.watchRequest.serialize({ topic: 'orders', position: 1 })));
    await once(stream, 'response');
    const before = Date.now();
    // More than the client's window and all that is in flight to it.
    const ids = Array.from({ length: 5_000 }, (_, i) => String(i));
    await upload(client, events('orders', ...ids));
    const lagOf = (page: Page) =>
      ['behind', 'furthest_behind_seconds'].map((name) =>
        ['replay', 'live'].map((phase) => page.value(`feed_watches_${name}`, { phase })!),
      );
    await eventuallyOn(httpAddress, (page) => {
      const [behind, seconds] = lagOf(page);
      expect(behind.toSorted((a, b) => a - b)).toEqual([0, 1]);
      expect(Math.max(...seconds)).toBeGreaterThan(1);
      expect(Math.max(...seconds)).toBeLessThan((Date.now() - before) / 1000 + 1);
    });
    stream.resume();
    await eventuallyOn(httpAddress, (page) =>
      expect(lagOf(page)).toEqual([
        [0, 0],
        [0, 0],
      ]),
    );
  });

  test('the log says how much it holds, and since when', async () => {
    const from = Date.now() / 1000 - 1;
    const { client, httpAddress } = await start();
    await upload(client, events('orders', 'a'));
    // NATS may answer too late for a page.
    const first = await eventuallyOn(httpAddress, (read) => {
      expect(read.value('feed_log_bytes')).toBeGreaterThan(0);
      return read;
    });
    await upload(client, events('orders', 'b', 'c'));
    const page = await eventuallyOn(httpAddress, (read) => {
      expect(read.value('feed_log_bytes')).toBeGreaterThan(first.value('feed_log_bytes')!);
      return read;
    });
    const head = page.value('feed_log_head_position')!;
    expect(head).toBeGreaterThan(first.value('feed_log_head_position')!);
    expect(page.value('feed_log_earliest_position')).toBeLessThan(head);
    for (const end of ['head', 'earliest']) {
      const at = page.value(`feed_log_${end}_timestamp_seconds`)!;
      expect(at).toBeGreaterThan(from);
      expect(at).toBeLessThan(Date.now() / 1000 + 1);
    }
    expect(page.value('feed_log_quota_bytes')).toBe(0);
  });
});

test('a file and its disk have sizes on lmdb', async () => {
  const { httpAddress } = await runService();
  const page = await scrape(httpAddress);
  const [file, free, disk] = ['feed_log_file_bytes', 'feed_disk_free_bytes', 'feed_disk_bytes'].map(
    (name) => page.value(name)!,
  );
  expect(file).toBeGreaterThan(0);
  expect(disk).toBeGreaterThan(free);
  expect(free).toBeGreaterThan(0);
});

test.skipIf(!NATS_SERVER)(
  'while NATS does not answer, its figures are missing, and the page comes without waiting for it',
  async () => {
    const [server] = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => server.remove());
    const { client, httpAddress } = await runService(jetstreamSettings([server]));
    await upload(client, events('orders', 'a'));
    await eventuallyOn(httpAddress, (page) =>
      expect(page.value('feed_log_bytes')).toBeGreaterThan(0),
    );
    server.signal('SIGSTOP');
    // A question that was asked before may still be answered.
    await eventuallyOn(httpAddress, (page) => expect(page.value('feed_log_bytes')).toBeUndefined());
    let fastest = Infinity;
    for (let i = 0; i < 3; i++) {
      const startedAt = performance.now();
      const page = await scrape(httpAddress);
      fastest = Math.min(fastest, performance.now() - startedAt);
      expect(page.value('feed_log_bytes')).toBeUndefined();
      expect(page.value('feed_log_head_position')).toBeGreaterThan(0);
      expect(page.value('feed_state', { state: 'ready' })).toBe(1);
    }
    // NATS itself is given 3 s for an answer.
    expect(fastest).toBeLessThan(2_500);
    server.signal('SIGCONT');
    await eventuallyOn(httpAddress, (page) =>
      expect(page.value('feed_log_bytes')).toBeGreaterThan(0),
    );
  },
);

test('calls are counted while they are open, and by how they ended', async () => {
  const service = await runService({ FEED_MAX_WATCHES: '1', FEED_ENGINE: 'memory' });
  const { client, httpAddress } = service;
  const call = await watch(service, 'orders');
  expect((await failure(client.Watch({ topic: 'orders' }))).code).toBe(status.RESOURCE_EXHAUSTED);
  expect((await failure(client.Watch({ topic: '' }))).code).toBe(status.RESOURCE_EXHAUSTED);
  await upload(client, events('orders', 'a'));
  await upload(client, [{ topic: 'no topic', body: '' }]);
  await eventuallyOn(httpAddress, (page) => {
    expect(page.value('feed_open_streams', { method: 'Watch' })).toBe(1);
    expect(page.value('feed_open_streams', { method: 'UploadEvents' })).toBe(0);
    expect(page.value('feed_connections')).toBe(1);
    const ended = (method: string, code: string, reason: string) =>
      page.value('feed_calls_total', { method, status: code, reason });
    expect(ended('Watch', 'RESOURCE_EXHAUSTED', 'LIMIT_EXCEEDED')).toBe(2);
    expect(ended('Watch', 'OK', '')).toBe(0);
    expect(ended('UploadEvents', 'OK', '')).toBe(1);
    expect(ended('UploadEvents', 'INVALID_ARGUMENT', 'EVENT_INVALID')).toBe(1);
    expect(page.value('feed_limits_hit_total', { limit: 'FEED_MAX_WATCHES' })).toBe(2);
    expect(page.value('feed_limits_hit_total', { limit: 'FEED_MAX_CHATS' })).toBe(0);
  });
  call.cancel();
  await eventuallyOn(httpAddress, (page) => {
    expect(page.value('feed_open_streams', { method: 'Watch' })).toBe(0);
    const labels = { method: 'Watch', status: 'CANCELLED', reason: '' };
    expect(page.value('feed_calls_total', labels)).toBe(1);
  });
});

test('an upload that is over the limit of topics is counted', async () => {
  const { client, httpAddress } = await runService({
    FEED_ENGINE: 'memory',
    FEED_MAX_TOPICS: '1',
  });
  await upload(client, events('orders', 'a'));
  await upload(client, events('other', 'b', 'c'));
  const page = await scrape(httpAddress);
  expect(page.value('feed_limits_hit_total', { limit: 'FEED_MAX_TOPICS' })).toBe(1);
});

test('chats are counted, and rooms that are over their limit', async () => {
  const { client, httpAddress } = await runService({ FEED_ENGINE: 'memory', FEED_MAX_ROOMS: '1' });
  const call = client.Chat();
  const ended = failure(call);
  call.write({ text: 'hi' });
  call.write({ text: 'there' });
  call.write({ room: 'one', text: '' });
  await eventuallyOn(httpAddress, (page) => {
    expect(page.value('feed_chat_messages_received_total')).toBe(3);
    expect(page.value('feed_chat_messages_sent_total')).toBe(2);
    expect(page.value('feed_rooms')).toBe(1);
  });
  call.write({ room: 'another', text: '' });
  await ended;
  const page = await scrape(httpAddress);
  expect(page.value('feed_limits_hit_total', { limit: 'FEED_MAX_ROOMS' })).toBe(1);
});

test('uploads that are held back are counted', async () => {
  const { client, httpAddress } = await runService({
    FEED_ENGINE: 'memory',
    FEED_UPLOAD_EVENTS_PER_SECOND: '100',
  });
  const ids = Array.from({ length: 250 }, (_, i) => String(i));
  const startedAt = performance.now();
  await upload(client, events('orders', ...ids));
  const took = (performance.now() - startedAt) / 1_000;
  const page = await scrape(httpAddress);
  // They take 2.5 s, and may be ahead by one.
  expect(page.value('feed_uploads_held_back_seconds_total')).toBeGreaterThan(0.3);
  expect(page.value('feed_uploads_held_back_seconds_total')).toBeLessThan(took);
});

test('commits that are refused are counted each, and logged once until there is room', async () => {
  const { client, httpAddress, log } = await runService({
    FEED_ENGINE: 'memory',
    FEED_QUOTA_BYTES: '4KiB',
  });
  const large = [{ topic: 'orders', id: 'large', body: 'x'.repeat(8_000) }];
  const refusals = () => log.filter(({ msg }) => String(msg).startsWith('uploads are refused'));
  const room = () => log.filter(({ msg }) => msg === 'there is room again: events are stored');
  let stored = 0;
  const storeSmall = async (): Promise<void> =>
    expect((await upload(client, events('orders', `${stored++}`))).error).toBeUndefined();
  for (let i = 0; i < 3; i++) {
    expect((await upload(client, large)).error).toBeDefined();
    await storeSmall();
  }
  const page = await scrape(httpAddress);
  expect(page.value('feed_commits_failed_total', { reason: 'storage-full' })).toBe(3);
  expect(page.value('feed_log_quota_bytes')).toBe(4096);
  // Small ones are stored by turns with the large ones, and there is room only once nothing was refused for ten seconds.
  expect([refusals().length, room().length]).toEqual([1, 0]);
  await until(
    async () => {
      await storeSmall();
      return room().length > 0;
    },
    'the line that there is room',
    undefined,
    1_000,
  );
  await upload(client, large);
  expect([refusals().length, room().length]).toEqual([2, 1]);
});

test('callers who are refused are counted by the reason', async () => {
  const issuer = await Issuer.create();
  const { client, metricsAddress } = await runService({
    FEED_ENGINE: 'memory',
    FEED_METRICS_ADDRESS: '127.0.0.1:0',
    ...issuer.settings(),
  });
  await failure(client.Watch({ topic: 'orders' }));
  const page = await scrape(metricsAddress!);
  expect(page.value('feed_auth_failures_total', { reason: 'UNAUTHENTICATED' })).toBe(1);
  expect(page.value('feed_auth_failures_total', { reason: 'TOPIC_FORBIDDEN' })).toBe(0);
});

test('a busy event loop shows', async () => {
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  const end = performance.now() + 700;
  while (performance.now() < end); // The service is in this process.
  await eventuallyOn(httpAddress, (page) => {
    const count = page.value('feed_event_loop_delay_seconds_count')!;
    const upTo = page.value('feed_event_loop_delay_seconds_bucket', { le: '0.5' })!;
    expect(count - upTo).toBeGreaterThan(0);
  });
});

test('a service that drains says so until its end', async () => {
  const service = await ServiceProcess.start({
    FEED_ENGINE: 'memory',
    FEED_DRAIN_TIMEOUT: '10m',
    FEED_UPLOAD_EVENTS_PER_SECOND: '1',
    FEED_METRICS_ADDRESS: '127.0.0.1:0',
  });
  const stateIs = (state: string) =>
    eventuallyOn(service.metricsAddress, (page) => {
      for (const each of ['starting', 'ready', 'draining'])
        expect(page.value('feed_state', { state: each })).toBe(Number(each === state));
    });
  await stateIs('ready');
  // An upload that is held back keeps the drain waiting.
  const client = service.connect();
  const held = client.UploadEvents(() => {});
  const ids = Array.from({ length: 300 }, (_, i) => String(i));
  for (const event of events('orders', ...ids)) held.write(event);
  await take(client, { topic: 'orders', position: 1 }, 1);
  service.process.kill('SIGTERM');
  await stateIs('draining');
  held.cancel();
  expect(await service.ended()).toEqual({ code: 0, signal: null });
});

describe('who may read metrics', () => {
  test('with an address of their own, they are there, and nothing else is', async () => {
    const { httpAddress, metricsAddress } = await runService({
      FEED_ENGINE: 'memory',
      FEED_METRICS_ADDRESS: '127.0.0.1:0',
    });
    const statusOf = async (address: string, path: string, method = 'GET') =>
      (await fetch(`http://${address}${path}`, { method })).status;
    expect(await statusOf(metricsAddress!, '/metrics')).toBe(200);
    expect(await statusOf(metricsAddress!, '/metrics', 'HEAD')).toBe(200);
    expect(await statusOf(metricsAddress!, '/metrics', 'POST')).toBe(405);
    expect(await statusOf(metricsAddress!, '/healthz')).toBe(404);
    expect(await statusOf(metricsAddress!, '/')).toBe(404);
    expect(await statusOf(httpAddress, '/metrics')).toBe(404);
  });

  test('with tokens, the HTTP port has none', async () => {
    const issuer = await Issuer.create();
    const { httpAddress } = await runService({ FEED_ENGINE: 'memory', ...issuer.settings() });
    const headers = { authorization: `Bearer ${await issuer.token()}` };
    const response = await fetch(`http://${httpAddress}/metrics`, { headers });
    expect(response.status).toBe(403);
    expect(await response.text()).toContain('FEED_METRICS_ADDRESS');
  });

  test('with client certificates, the HTTP port wants one', async () => {
    const authority = new Authority(temporaryDirectory());
    const { cert, key } = authority.server();
    const { httpAddress } = await runService({
      FEED_ENGINE: 'memory',
      FEED_TLS_CERT: cert,
      FEED_TLS_KEY: key,
      FEED_TLS_CLIENT_CA: authority.cert,
    });
    const ca = authority.cert;
    expect(await httpStatus(httpAddress, '/metrics', { ca })).toBe(403);
    expect(await httpStatus(httpAddress, '/metrics', { ca, own: authority.client() })).toBe(200);
  });

  test('connections that are held open keep Prometheus neither out nor the service running', async () => {
    const { metricsAddress, app } = await runService({
      FEED_ENGINE: 'memory',
      FEED_METRICS_ADDRESS: '127.0.0.1:0',
    });
    const [host, port] = metricsAddress!.split(':');
    const held: Socket[] = [];
    let closed = 0;
    for (let i = 0; i < 40; i++) {
      const socket = connectTcp(Number(port), host).on('error', () => {});
      socket.on('close', () => closed++);
      onTestFinished(() => void socket.destroy());
      await once(socket, 'connect');
      held.push(socket);
    }
    await until(() => closed >= 40 - 16, 'the end of the oldest connections');
    expect((await scrape(metricsAddress!)).metrics.size).toBeGreaterThan(20);
    expect(held.at(-1)!.destroyed).toBe(false);
    await app.close();
    await until(() => closed === 40, 'the end of all connections');
  });

  test('a connection that asks for many pages ahead of their answers is closed, and few are made', async () => {
    const { metricsAddress, app } = await runService({
      FEED_ENGINE: 'memory',
      FEED_METRICS_ADDRESS: '127.0.0.1:0',
    });
    const asked = vi.spyOn(app.get(MetricsPage), 'text');
    const [host, port] = metricsAddress!.split(':');
    const socket = connectTcp(Number(port), host).on('error', () => {});
    onTestFinished(() => void socket.destroy());
    socket.write('GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(1_000));
    await until(() => socket.resume().closed, 'the end of the connection');
    expect(asked.mock.calls.length).toBeLessThanOrEqual(16);
    expect((await scrape(metricsAddress!)).metrics.size).toBeGreaterThan(20);
  });
});
