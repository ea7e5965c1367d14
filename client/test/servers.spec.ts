import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { LogEntry, WatchState } from '@feed-events/client';
import { parseAddresses } from '../src/grpc/addresses.js';
import { until, within } from '../../test/support/wait.js';
import { FaultProxy } from './fault-proxy.js';
import { events, ScriptedServer, status } from './scripted-server.js';
import { bodies, client, Subject, take } from './service.js';

const pem = (name: string): string =>
  readFileSync(new URL(`certificates/${name}`, import.meta.url), 'utf8');

describe('addresses', () => {
  test.each([
    ['localhost', [{ host: 'localhost', port: 50051, isDns: false }]],
    [
      'feed:1, [::1]:2',
      [
        { host: 'feed', port: 1, isDns: false },
        { host: '::1', port: 2, isDns: false },
      ],
    ],
    ['dns:///feed.default.svc:3', [{ host: 'feed.default.svc', port: 3, isDns: true }]],
  ])('may be %s', (text, wanted) => {
    expect(parseAddresses(text)).toEqual(wanted);
  });

  test.each(['', ',', 'http://feed', 'feed:port', 'feed:99999', 'a b', '::1'])(
    'may not be "%s"',
    (text) => {
      expect(() => parseAddresses(text)).toThrow(TypeError);
    },
  );
});

test.each(['https://ann:secret@feed', 'ann:secret@feed:1', 'ann:sec,ret@feed'])(
  'a user and a password in an address are not shown: %s',
  (text) => {
    expect(() => parseAddresses(text)).toThrow(/^an address has an "@"[^@]*$/);
    expect(() => parseAddresses(text)).not.toThrow(/sec|ret/);
  },
);

describe('several servers', () => {
  test('share the calls of a client, over one connection each', async () => {
    const subject = await Subject.start();
    const other = await FaultProxy.start(() => subject.address);
    const feed = client([subject.proxy.address, other.address]);
    await client(subject.address).upload('t', ['a']);
    const watches = Array.from({ length: 6 }, () =>
      feed.watch('t', { from: 'earliest' })[Symbol.asyncIterator](),
    );
    for (const watch of watches) expect((await watch.next()).value).toMatchObject({ body: 'a' });
    expect([subject.proxy.connections, other.connections]).toEqual([1, 1]);
    for (const watch of watches) await watch.return!();
  });

  test('cost one attempt when one of them goes', async () => {
    const subject = await Subject.start();
    const other = await FaultProxy.start(() => subject.address);
    await client(subject.address).upload('t', ['a']);
    const feed = client(`${subject.proxy.address},${other.address}`);
    const states: WatchState[] = [];
    const got: string[] = [];
    for await (const { body } of feed.watch('t', {
      from: 'earliest',
      onState: (state) => states.push(state),
    })) {
      got.push(body);
      if (got.length === 2) break;
      const used = subject.proxy.connections > 0 ? subject.proxy : other;
      used.close();
      await client(subject.address).upload('t', ['b']);
    }
    expect(got).toEqual(['a', 'b']);
    expect(states.filter(({ name }) => name === 'reconnecting')).toHaveLength(1);
  });

  test('of which one drains are asked for calls, and that one no more', async () => {
    const draining = await ScriptedServer.start(
      status(14, 'the server is shutting down', { reason: 'DRAINING' }),
    );
    const other = await ScriptedServer.start(events('a'));
    const feed = client([draining.address, other.address]);
    for (let i = 0; i < 10; i++) await take(feed.watch('t'), 1);
    expect(other.calls).toHaveLength(10);
    expect(draining.calls.length).toBeLessThanOrEqual(1);
  });

  test('of which one moves calls are asked in turn as before', async () => {
    const moving = await ScriptedServer.start(status(14, 'go on', { reason: 'MOVED' }));
    const other = await ScriptedServer.start(events('a'));
    const feed = client([moving.address, other.address]);
    for (let i = 0; i < 10; i++) await take(feed.watch('t'), 1);
    expect(other.calls).toHaveLength(10);
    expect(moving.calls.length).toBeGreaterThan(3);
  });

  test('may be the addresses of one name', async () => {
    const { service } = await Subject.start();
    const port = service.grpcAddress.split(':')[1];
    const feed = client(`dns:///localhost:${port}`);
    await feed.upload('t', ['a']);
    expect(bodies(await take(feed.watch('t', { from: 'earliest' }), 1))).toEqual(['a']);
  });
});

describe('a server that can not be reached', () => {
  test.each([
    ['is not there', async () => '127.0.0.1:1', {}, 'ECONNREFUSED'],
    ['has no address', async () => 'dns:///nowhere.invalid:1', {}, "can't find nowhere.invalid"],
    [
      'takes connections and says nothing',
      mute,
      { connectTimeout: 200 },
      'did not answer within 0.2 s',
    ],
    ['speaks HTTP/1.1', http1, {}, 'does not speak gRPC'],
  ])('and %s is told so', async (_, start, options, message) => {
    const log: LogEntry[] = [];
    const feed = client(await start(), { ...options, log: (entry) => log.push(entry) });
    const controller = new AbortController();
    const watch = take(feed.watch('t', { signal: controller.signal }), 1);
    await until(() => log.some(({ level }) => level === 'warn'), 'a warning');
    controller.abort();
    await watch;
    const warning = log.find(({ level }) => level === 'warn')!;
    expect(warning.message).toContain('the watch of t broke, and goes on');
    expect(warning.error).toMatchObject({ status: 'UNAVAILABLE' });
    expect(warning.message).toContain(message);
  });

  test('though it has opened the connection, is found by keepalive', async () => {
    const subject = await Subject.start();
    const feed = subject.client({ keepalive: { time: 200, timeout: 200 } });
    const states: WatchState[] = [];
    // Its heartbeats come too seldom to find it within the test's time.
    const watch = feed.watch('t', { heartbeat: 3_600_000, onState: (state) => states.push(state) });
    const taken = take(watch, 1);
    await until(() => states.some(({ name }) => name === 'live'), 'a live watch');
    subject.proxy.freezeAll();
    await until(() => states.some(({ name }) => name === 'reconnecting'), 'the break');
    await client(subject.address).upload('t', ['a']);
    expect(bodies(await taken)).toEqual(['a']);
  });

  test('is waited for, however long it takes', async () => {
    const subject = await Subject.start();
    await subject.service.kill('SIGKILL');
    const feed = subject.client();
    const upload = feed.upload('t', ['a']);
    const watch = take(feed.watch('t', { from: 'earliest' }), 1);
    await subject.restart();
    expect(await upload).toMatchObject({ stored: 1 });
    expect(bodies(await watch)).toEqual(['a']);
  });
});

describe('TLS', () => {
  test('with an authority of its own, and by the name in the certificate', async () => {
    const { address } = await Subject.start();
    const tls = await tlsInFrontOf(address);
    const feed = client(tls, { tls: { ca: pem('ca.pem') } });
    await feed.upload('t', ['a']);
    expect(bodies(await take(feed.watch('t', { from: 'earliest' }), 1))).toEqual(['a']);
  });

  test('with a certificate of the client', async () => {
    const { address } = await Subject.start();
    const tls = await tlsInFrontOf(address, { requestCert: true, ca: pem('ca.pem') });
    const own = { cert: pem('client.pem'), key: pem('client.key') };
    const feed = client(tls, { tls: { ca: pem('ca.pem'), ...own } });
    expect(await feed.upload('t', ['a'])).toMatchObject({ stored: 1 });
    expect(await reasonOf(tls, { ca: pem('ca.pem') })).not.toBe('');
  });

  test.each([
    ['whose authority is unknown', {}, 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
    [
      'whose name is another',
      { ca: pem('ca.pem'), serverName: 'other' },
      'ERR_TLS_CERT_ALTNAME_INVALID',
    ],
  ])('refuses a server %s', async (_, tls, code) => {
    const { address } = await Subject.start();
    expect(await reasonOf(await tlsInFrontOf(address), tls)).toContain(code);
  });

  test('refuses a server that does not speak HTTP/2', async () => {
    const plain = createTlsServer({
      key: pem('server.key'),
      cert: pem('server.pem'),
      ALPNProtocols: ['http/1.1'],
    });
    plain.listen(0, '127.0.0.1');
    await once(plain, 'listening');
    onTestFinished(() => void plain.close());
    expect(await reasonOf(addressOf(plain), { ca: pem('ca.pem') })).not.toBe('');
  });
});

/** Resolves with why a watch over TLS does not come about. */
async function reasonOf(address: string, tls: object): Promise<string> {
  const reasons: string[] = [];
  const controller = new AbortController();
  const feed = client(address, { tls, log: ({ error }) => error && reasons.push(error.message) });
  const watch = take(feed.watch('t', { signal: controller.signal }), 1);
  await until(() => reasons.length > 0, 'a reason');
  controller.abort();
  await within(watch, 'the end of the watch');
  return reasons[0];
}

async function tlsInFrontOf(address: string, options: TlsOptions = {}): Promise<string> {
  const server = createTlsServer(
    { key: pem('server.key'), cert: pem('server.pem'), ALPNProtocols: ['h2'], ...options },
    (socket) => {
      const [host, port] = address.split(':');
      const plain = connectTcp(Number(port), host);
      socket.pipe(plain).pipe(socket);
      for (const one of [socket, plain]) {
        one.on('error', () => {});
        one.on('close', () => (socket.destroySoon(), plain.destroySoon()));
      }
    },
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return addressOf(server);
}

function addressOf(server: { address(): unknown }): string {
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function mute(): Promise<string> {
  return answering(() => {});
}

async function http1(): Promise<string> {
  return answering((socket) => socket.end('HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n'));
}

async function answering(answer: (socket: Socket) => void): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    onTestFinished(() => void socket.destroy());
    answer(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return addressOf(server);
}
