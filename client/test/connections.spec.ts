import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  createServer as createHttp2,
  type Http2Session,
  type ServerHttp2Session,
} from 'node:http2';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { lookup } from 'node:dns/promises';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { connect, type WatchState } from '@feed-events/client';
import { standStill, until, within } from '../../test/support/wait.js';
import { now } from '../src/clock.js';
import {
  answerThen,
  events,
  heartbeat,
  noStatus,
  ScriptedServer,
  storeUpload,
} from './scripted-server.js';
import { bodies, client, Subject, take } from './service.js';

vi.mock('node:dns/promises', async (original) => {
  const actual = await original<typeof import('node:dns/promises')>();
  return { ...actual, lookup: vi.fn(actual.lookup) };
});

test('a connection that is still opening ends with the client', async () => {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket
      .on('error', () => {})
      .resume()
      .on('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const feed = connect(`127.0.0.1:${(server.address() as AddressInfo).port}`, {
    connectTimeout: 60_000,
  });
  const watch = take(feed.watch('t'), 1);
  await until(() => sockets.size === 1, 'a connection');
  feed.close();
  await within(watch, 'the end of the watch');
  await until(() => sockets.size === 0, 'the end of the connection');
});

test('times may be endless: no timer fires at once because of that', async () => {
  const { address } = await Subject.start();
  const states: WatchState[] = [];
  const saved: string[] = [];
  const feed = client(address, {
    connectTimeout: Infinity,
    keepalive: { time: Infinity, timeout: Infinity },
  });
  const watch = feed.watch('t', {
    from: 'earliest',
    heartbeat: 1_000_000_000,
    checkpoint: { load: async () => undefined, save: async (cursor) => void saved.push(cursor) },
    checkpointEvery: { time: Infinity },
    onState: (state) => states.push(state),
  });
  await feed.upload('t', ['a', 'b', 'c']);
  const got: string[] = [];
  for await (const { body } of watch) {
    got.push(body);
    await new Promise((resolve) => setTimeout(resolve, 100));
    if (got.length === 3) break;
  }
  expect(got).toEqual(['a', 'b', 'c']);
  expect(states.filter(({ name }) => name === 'reconnecting')).toEqual([]);
  expect(saved).toHaveLength(1); // at the end
});

test('a watch whose heartbeat came while the client stood still goes on', async () => {
  let beats = 0;
  const server = await ScriptedServer.start((stream, headers) => {
    events()(stream, headers);
    const beat = (): void => {
      // Else it would stand still through the tests after this one.
      if (stream.destroyed) return;
      beats++;
      // Now the client's kernel has the heartbeat. When the client gets to read it, its time is over.
      stream.write(heartbeat(beats), () => standStill(3_000));
      setTimeout(beat, 1);
    };
    beat();
  });
  const states: string[] = [];
  const controller = new AbortController();
  const watch = client(server.address).watch('t', {
    heartbeat: 1_000, // a watch breaks after 2.5 s without any
    signal: controller.signal,
    onState: ({ name }) => states.push(name),
  });
  const ended = take(watch, 1);
  await until(() => beats >= 3, 'three heartbeats');
  controller.abort();
  await ended;
  expect(states).toEqual(['connecting', 'live', 'ended']);
});

test('a call that its server has ended without a status, and that is left with messages unread, makes room for another one', async () => {
  const ended = Promise.withResolvers<void>();
  const sessions = new Set<unknown>();
  const bulk = Array.from({ length: 500 }, () => 'x'.repeat(1_000));
  const server = await ScriptedServer.start((stream, headers) => {
    const session = stream.session!;
    sessions.add(session);
    session.settings({ maxConcurrentStreams: 1 });
    // The client answers a PING once it has read what was sent before it.
    stream.on('close', () => session.destroyed || session.ping(() => ended.resolve()));
    answerThen(events(...bulk), noStatus)(stream, headers);
  });
  const feed = client(server.address);
  for await (const _ of feed.watch('t')) {
    await within(ended.promise, 'the end of the call');
    break;
  }
  await nextTurn(); // Streams close in a turn of their own.
  await take(feed.watch('t'), 1);
  expect(sessions.size).toBe(1);
});

describe('a server is not taken for dead whose answer', () => {
  /** Times of keepalive: the server is in the client's process, which may not stand still for two seconds by itself. */
  const KEEPALIVE = { time: 200, timeout: 2_000 };
  const standStillOnce = (): void => standStill(KEEPALIVE.timeout + 500);

  /** Watches until the server has got three PINGs. @param onSession prepares each of the server's sessions */
  async function watchThroughPings(onSession: (session: ServerHttp2Session) => void) {
    let pings = 0;
    const server = createHttp2();
    server.on('session', (session) => {
      onTestFinished(() => session.destroy());
      session.on('ping', () => pings++);
      onSession(session);
    });
    server.on('stream', (stream, headers) => {
      stream.on('error', () => {});
      events()(stream, headers);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    const states: string[] = [];
    const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const controller = new AbortController();
    const watch = client(address, { keepalive: KEEPALIVE }).watch('t', {
      heartbeat: 3_600_000,
      signal: controller.signal,
      onState: ({ name }) => states.push(name),
    });
    const ended = take(watch, 1);
    await until(() => pings >= 3, 'three PINGs');
    controller.abort();
    await ended;
    return states;
  }

  test('came while the client stood still', async () => {
    // When the client gets to read it, its time is over.
    const states = await watchThroughPings((session) => session.on('ping', standStillOnce));
    expect(states).toEqual(['connecting', 'live', 'ended']);
  });

  test('was asked for by a PING that could not leave while the client stood still', async () => {
    const states = await watchThroughPings((session) => {
      // The class of the client's sessions, too.
      const http2Session = Object.getPrototypeOf(Object.getPrototypeOf(session)) as Pick<
        Http2Session,
        'ping'
      >;
      const { ping } = http2Session;
      const spy = vi.spyOn(http2Session, 'ping').mockImplementation(function (
        this: Http2Session,
        ...args: unknown[]
      ) {
        process.nextTick(standStillOnce); // Node writes the PING later.
        return ping.apply(this, args as never);
      });
      onTestFinished(() => spy.mockRestore());
    });
    expect(states).toEqual(['connecting', 'live', 'ended']);
  });
});

test('a connection that has gone silent is given up, though each call on it ends before its server counts as gone', async () => {
  const subject = await Subject.start();
  const feed = subject.client({ keepalive: { time: 60_000, timeout: 2_000 } });
  await feed.upload('t', ['a']);
  subject.proxy.freezeAll();
  const isStored = async (): Promise<boolean> => {
    const upload = feed.upload('t', ['b'], { signal: AbortSignal.timeout(500) });
    return upload.then(
      () => true,
      () => false,
    );
  };
  await until(isStored, 'an upload over a new connection');
});

test('a connection that goes silent after the PING of one call was answered is found dead by the PING of the next', async () => {
  const subject = await Subject.start();
  const feed = subject.client({ keepalive: { time: 60_000, timeout: 2_000 } });
  await feed.upload('t', ['a']); // It begins with a PING, whose time is not over when the next call begins.
  await sleep(50); // The call has left its connection, which is idle.
  subject.proxy.freezeAll();
  const watch = feed.watch('t', { from: 'earliest', heartbeat: 3_600_000 });
  const taken = await within(take(watch, 1), 'a watch over a new connection');
  expect(bodies(taken)).toEqual(['a']);
});

test('a PING without an answer keeps no process alive', async () => {
  const subject = await Subject.start();
  const program = `
    import { connect } from '../dist/index.js';
    const feed = connect('${subject.proxy.address}', { keepalive: { time: 60_000, timeout: 3_600_000 } });
    await feed.upload('t', ['a']);
    console.log('stored');
    for await (const _ of process.stdin); // until the connection is frozen
    await feed.upload('t', ['b'], { signal: AbortSignal.timeout(500) }).catch((error) => console.log(error.status));
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    cwd: fileURLToPath(new URL('.', import.meta.url)),
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const closed = once(child, 'close');
  await until(() => output === 'stored\n', 'an upload');
  subject.proxy.freezeAll();
  child.stdin.end();
  await within(closed, 'the end of the process');
  expect(output).toBe('stored\nCANCELLED\n');
});

test('names that can not be looked up for a while break nothing that is known', async () => {
  const stored: string[] = [];
  const server = await ScriptedServer.start(storeUpload(stored));
  const feed = client(server.address.replace('127.0.0.1', 'dns:///localhost'));
  vi.mocked(lookup).mockResolvedValueOnce([{ address: '127.0.0.1', family: 4 }] as never);
  await feed.upload('t', ['a']);
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 60_000 });
  onTestFinished(() => void vi.useRealTimers());
  const failure = Object.assign(new Error('no answer'), { code: 'EAI_AGAIN' });
  vi.mocked(lookup).mockRejectedValueOnce(failure);
  const { retries } = await feed.upload('t', ['b']);
  expect(retries).toBe(0);
  expect(stored).toEqual(['a', 'b']);
});

test('calls that begin together ask for a name once', async () => {
  const server = await ScriptedServer.start(events('a'));
  const feed = client(server.address.replace('127.0.0.1', 'dns:///localhost'));
  vi.mocked(lookup)
    .mockClear()
    .mockResolvedValue([{ address: '127.0.0.1', family: 4 }] as never);
  const watches = await Promise.all(Array.from({ length: 20 }, () => take(feed.watch('t'), 1)));
  for (const watch of watches) expect(bodies(watch)).toEqual(['a']);
  expect(lookup).toHaveBeenCalledTimes(1);
});

test('the clock for deadlines goes on when the time of day is set back, and with it when it jumps ahead', () => {
  const before = now();
  const real = Date.now();
  onTestFinished(() => void vi.useRealTimers());
  vi.useFakeTimers({ toFake: ['Date'], now: real - 3_600_000 });
  expect(now() - before).toBeGreaterThanOrEqual(0);
  expect(now() - before).toBeLessThan(60_000);
  vi.setSystemTime(real + 7_200_000);
  expect(now() - before).toBeGreaterThan(3_600_000);
});

test.each([1, 2])('a certificate that is none ends a watch of %d servers', async (servers) => {
  const addresses = ['127.0.0.1:1', '127.0.0.1:2'].slice(0, servers);
  const feed = client(addresses, { tls: { ca: 'x', cert: 'no certificate', key: 'no key' } });
  const failure: unknown = await take(feed.watch('t'), 1).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: expect.stringContaining('ERR_OSSL') as string });
});
