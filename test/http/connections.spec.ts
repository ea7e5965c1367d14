import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { Agent, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, onTestFinished, test } from 'vitest';
import { upload } from '../support/client.js';
import { Authority, type Pair } from '../support/certificates.js';
import { ask, EventStream } from '../support/http.js';
import { runService, ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually, until, upToThrice, within } from '../support/wait.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

test('streams leave connections for probes, however many are asked for', async () => {
  const service = ServiceProcess.shell(
    `ulimit -n 200 && exec ${join(root, 'bin', 'feed-server')}`,
    {
      FEED_DATA_DIR: temporaryDirectory(),
    },
  );
  await service.ready();
  const { httpAddress } = service;
  // (200 - 64) / 8 connections are for HTTP, of which streams may have three quarters.
  const streams: EventStream[] = [];
  for (let i = 0; i < 13; i++) streams.push(await EventStream.open(httpAddress, 'topic=orders'));
  expect(streams.map(({ status }) => status)).toEqual(Array(13).fill(200));
  for (let i = 0; i < 5; i++) {
    const refused = await ask(httpAddress, '/v1/events?topic=orders');
    expect([refused.status, refused.json]).toMatchObject([
      429,
      { reason: 'LIMIT_EXCEEDED', limit: 'http_streams', most: '13' },
    ]);
    expect((await ask(httpAddress, '/healthz')).status).toBe(200);
  }
  streams[0].close();
  await eventually(async () => {
    const next = await EventStream.open(httpAddress, 'topic=orders');
    expect(next.status).toBe(200);
  });
});

test('of streams that come at once, those within the limit are served, and each beyond it is refused', async () => {
  const service = ServiceProcess.shell(
    `ulimit -n 200 && exec ${join(root, 'bin', 'feed-server')}`,
    // The refused ones count for no other limit.
    { FEED_DATA_DIR: temporaryDirectory(), FEED_MAX_WATCHES: '14' },
  );
  await service.ready();
  const [host, port] = service.httpAddress.split(':');
  const socket = connect({ host, port: Number(port) });
  onTestFinished(() => void socket.destroy());
  let received = '';
  socket.setEncoding('latin1').on('data', (text: string) => (received += text));
  // Node reads all of them before it is found out who calls.
  socket.write('GET /v1/events?topic=orders HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(15));
  const refusals = () =>
    service.output
      .join('')
      .split('\n')
      .filter((line) => line.includes('LIMIT_EXCEEDED'));
  await until(() => refusals().length >= 2, 'the refusals of two watches');
  for (const line of refusals()) expect(line).toContain('"13 streams are open over HTTP');
  await until(() => received.includes('\r\n'), 'the first answer');
  expect(received).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  const { json } = await ask(service.httpAddress, '/v1/streams');
  expect(refusals()).toHaveLength(2);
  expect((json as { streams: unknown[] }).streams.length).toBeGreaterThanOrEqual(13);
});

test('a watch on a connection that is old moves: it ends with MOVED, and its connection closes', async () => {
  const service = await runService({
    FEED_ENGINE: 'memory',
    FEED_MAX_CONNECTION_AGE: '1s',
    FEED_MAX_CONNECTION_AGE_GRACE: '0s',
  });
  // A move may refuse it, and its id keeps it from being stored twice.
  const event = { topic: 'orders', id: 'a', body: 'a' };
  await until(async () => !(await upload(service.client, [event])).error, 'the event');
  // If the process stands still for that second, a watch ends before it has read anything.
  const stream = await upToThrice(
    async () => {
      const watch = await EventStream.open(service.httpAddress, 'topic=orders&from=earliest');
      return watch.ended();
    },
    ({ events }) => events.length > 0,
  );
  expect(stream.events).toHaveLength(1);
  const { cursor } = stream.events[0];
  expect(stream.problem).toMatchObject({ reason: 'MOVED', status: 503, cursor });
  expect(stream.blocks.at(-1)).toMatchObject({
    id: cursor,
    retry: expect.stringMatching(/^\d{4}$/),
  });
});

test('short requests on a connection that is old end it, and the next one takes another', async () => {
  const { httpAddress } = await runService({
    FEED_ENGINE: 'memory',
    FEED_MAX_CONNECTION_AGE: '1s',
  });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  onTestFinished(() => agent.destroy());
  const sockets = new Set<unknown>();
  agent.on('free', (socket) => sockets.add(socket));
  const post = () =>
    ask(httpAddress, '/v1/events?topic=orders', {
      method: 'POST',
      headers: { 'content-type': 'text/plain' },
      body: 'x',
      agent,
    });
  const began = performance.now();
  let answer = await post();
  while (answer.headers.connection !== 'close') {
    expect(answer.status).toBe(200);
    expect(sockets.size).toBe(1);
    expect(performance.now() - began).toBeLessThan(20_000);
    answer = await post();
  }
  // The age differs by up to a tenth.
  expect(performance.now() - began).toBeGreaterThan(890);
  expect(answer.json).toMatchObject({ received: 1 });
  // A connection is old at once if the process stands still for a second.
  const next = await upToThrice(post, ({ headers }) => headers.connection !== 'close');
  expect(next.headers.connection).toBe('keep-alive');
});

/** Returns after how long (seconds) the kernel asks a silent client for a sign of life; undefined while the connection is not silent. */
function keepaliveLeft(local: number, remote: number): number | undefined {
  const at = (port: number) => `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n')) {
    // The columns are in proc(5): 02 is the timer of keepalives, which is in hundredths of a second.
    const [, near, far, , , timer] = line.trim().split(/\s+/);
    if (near?.endsWith(at(local)) && far.endsWith(at(remote)) && timer.startsWith('02:'))
      return Number.parseInt(timer.slice(3), 16) / 100;
  }
  return undefined;
}

test.each([
  ['500ms', 1],
  ['2s', 2],
])('with FEED_KEEPALIVE_TIME=%s, a silent client is asked after %i s', async (time, seconds) => {
  const { httpAddress } = await runService({
    FEED_ENGINE: 'memory',
    FEED_KEEPALIVE_TIME: time,
  });
  const [host, port] = httpAddress.split(':');
  const socket = connect({ host, port: Number(port) });
  onTestFinished(() => void socket.destroy());
  const left = await eventually(() => {
    const now = keepaliveLeft(Number(port), socket.localPort!);
    expect(now).toBeDefined();
    return now!;
  });
  expect(left).toBeLessThanOrEqual(seconds);
});

describe('with client certificates', () => {
  /** How long a certificate lasts that ends during a test: a busy machine needs seconds to issue it and to begin a call. */
  const SECONDS = 20;

  async function serve() {
    const authority = new Authority(temporaryDirectory());
    const { cert, key } = authority.server();
    const service = await runService({
      FEED_ENGINE: 'memory',
      FEED_TLS_CERT: cert,
      FEED_TLS_KEY: key,
      FEED_TLS_CLIENT_CA: authority.cert,
    });
    const [host, port] = service.httpAddress.split(':');
    const open = async (path: string, own?: Pair) => {
      const call = request({
        host,
        port,
        path,
        agent: false,
        servername: 'localhost',
        ca: readFileSync(authority.cert),
        ...(own && { cert: readFileSync(own.cert), key: readFileSync(own.key) }),
      });
      onTestFinished(() => void call.on('error', () => {}).destroy());
      call.end();
      const [response] = (await within(once(call, 'response'), 'an answer')) as [IncomingMessage];
      const seen = { status: response.statusCode, text: '', hasEnded: false };
      response.setEncoding('utf8').on('data', (text: string) => (seen.text += text));
      response.on('error', () => {}).on('close', () => (seen.hasEnded = true));
      return seen;
    };
    return { service, authority, open };
  }

  test('the certificate says who it is, and any path but the probes needs one', async () => {
    const { authority, open } = await serve();
    expect((await open('/v1/session')).status).toBe(403);
    expect((await open('/console/')).status).toBe(403);
    expect((await open('/healthz')).status).toBe(200);
    const session = await open('/v1/session', authority.client({ subject: '/CN=shop' }));
    await until(() => session.hasEnded, 'the answer');
    expect(JSON.parse(session.text)).toEqual({ principal: 'shop' });
  });

  test('a watch ends with its certificate', async () => {
    const { authority, open } = await serve();
    const own = authority.client({ seconds: SECONDS });
    const stream = await open('/v1/events?topic=orders', own);
    expect(stream.status).toBe(200);
    await until(() => stream.hasEnded, 'the end of the stream', 60_000);
    expect(stream.text).toContain('event: feed-error');
    expect(stream.text).toContain('"reason":"CERTIFICATE_EXPIRED"');
  });

  test('on a connection that outlives its certificate, the next request is told so, and the connection closes', async () => {
    const { service, authority } = await serve();
    const { httpAddress, log } = service;
    const agent = new HttpsAgent({ keepAlive: true, maxSockets: 1 });
    onTestFinished(() => agent.destroy());
    const sockets = new Set<unknown>();
    agent.on('free', (socket) => sockets.add(socket));
    const { cert, key } = authority.client({ seconds: SECONDS });
    const end = Date.now() + SECONDS * 1_000;
    const files = { ca: authority.cert, cert, key };
    const tls = Object.fromEntries(Object.entries(files).map(([k, v]) => [k, readFileSync(v)]));
    const get = (path: string) =>
      ask(httpAddress, path, { agent, servername: 'localhost', ...tls });
    expect((await get('/v1/session')).json).toEqual({ principal: 'orders' });
    // Those of a probe need no certificate, and keep the connection from being idle.
    await until(async () => (await get('/healthz')) && Date.now() > end, 'its end', 60_000, 200);
    const late = await get('/v1/session');
    expect(late.status).toBe(401);
    expect(late.json).toMatchObject({ reason: 'CERTIFICATE_EXPIRED' });
    expect(late.headers.connection).toBe('close');
    expect(sockets.size).toBe(1);
    expect(log.filter(({ msg }) => msg === 'a request failed')).toEqual([]);
  });
});
