import { once } from 'node:events';
import { createServer as createHttp2 } from 'node:http2';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { FeedError, type WatchState } from '@feed-events/client';
import { within } from '../../test/support/wait.js';
import {
  type Answer,
  beginChat,
  events,
  http,
  ScriptedServer,
  silence,
  status,
  storeUpload,
} from './scripted-server.js';
import { bodies, client, take } from './service.js';

/** Frames of HTTP/2: empty SETTINGS, and GOAWAY with an error. */
const SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
const goaway = (code: number): Buffer =>
  Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code]);

test.each([
  ['refuses with GOAWAY and an error', Buffer.concat([SETTINGS, goaway(11)])],
  ['refuses with GOAWAY', Buffer.concat([SETTINGS, goaway(0)])],
  ['goes on with rubbish', Buffer.concat([SETTINGS, Buffer.from('HTTP/1.1 200 OK\r\n\r\n')])],
])('a connection that a server %s right after its settings is tried again', async (_, bytes) => {
  let connections = 0;
  const server = createServer((socket: Socket) => {
    connections++;
    socket.on('error', () => {}).once('data', () => socket.end(bytes));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const feed = client(`127.0.0.1:${(server.address() as AddressInfo).port}`);
  const controller = new AbortController();
  const reasons: FeedError[] = [];
  const onState = (state: WatchState): void => {
    if (state.name === 'reconnecting' && reasons.push(state.reason) === 3) controller.abort();
  };
  await within(take(feed.watch('t', { signal: controller.signal, onState }), 1), 'the end');
  expect(reasons).toHaveLength(3);
  for (const reason of reasons) expect(reason.status).toBe('UNAVAILABLE');
  expect(connections).toBeGreaterThanOrEqual(3);
});

test('a token may end with a new line, as files do', async () => {
  const server = await ScriptedServer.start(events('a'));
  const feed = client(server.address, { token: async () => 'secret\n' });
  await take(feed.watch('t'), 1);
  expect(server.calls[0].authorization).toBe('Bearer secret');
});

test.each([
  ['a value with a control character', { 'x-tenant': 'a\nb' }],
  ['a value that is not ASCII', { 'x-tenant': 'ünïcödé ☃' }],
  ['a name with a space', { 'x tenant': 'a' }],
  ['a name of HTTP/2 itself', { ':path': '/elsewhere' }],
  ['a name that HTTP/2 forbids', { connection: 'close' }],
])('metadata with %s is refused, not tried for ever', async (_, metadata) => {
  const server = await ScriptedServer.start(events('a'));
  const feed = client(server.address, { metadata });
  const failure = await take(feed.watch('t'), 1).catch((error: unknown) => error);
  expect(failure).toMatchObject({ name: 'FeedError', status: 'INVALID_ARGUMENT' });
  expect(server.calls).toHaveLength(0);
});

test('calls beyond what a server takes on a connection go over another one', async () => {
  /** Those with calls: a client that stands still while it connects tries another socket, and closes it. */
  const connections = new Set<unknown>();
  const server = createHttp2({ settings: { maxConcurrentStreams: 2 } });
  server.on('session', (session) => onTestFinished(() => session.destroy()));
  const stored: string[] = [];
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    connections.add(stream.session);
    const answer = headers[':path']!.endsWith('/Watch') ? events('a') : storeUpload(stored);
    answer(stream, headers);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const feed = client(`127.0.0.1:${(server.address() as AddressInfo).port}`);
  const watches = Array.from({ length: 6 }, () => feed.watch('t')[Symbol.asyncIterator]());
  // All begin at once, while the first connection opens.
  const first = Promise.all(watches.map((watch) => watch.next()));
  for (const { value } of await within(first, 'six events')) expect(value!.body).toBe('a');
  await within(feed.upload('t', ['x']), 'the upload');
  expect(stored).toEqual(['x']);
  expect(connections.size).toBe(4);
  for (const watch of watches) await watch.return!();
});

test('a status in the headers ends the call, though the stream stays open', async () => {
  const answer: Answer = (stream) =>
    stream.respond({
      ':status': 200,
      'content-type': 'application/grpc',
      'grpc-status': '7',
    });
  const server = await ScriptedServer.start(answer);
  const failure = client(server.address).upload('t', ['a']);
  await expect(within(failure, 'the failure')).rejects.toMatchObject({
    status: 'PERMISSION_DENIED',
  });
});

test.each([
  ['is no event', Buffer.from([0, 0, 0, 0, 2, 0x0a, 0xff])],
  ['has no cursor', Buffer.from([0, 0, 0, 0, 0])],
])('a message that %s ends a watch with DATA_LOSS', async (_, bytes) => {
  const server = await ScriptedServer.start((stream, headers) => {
    events('a')(stream, headers);
    stream.write(bytes);
  });
  const failure = await take(client(server.address).watch('t'), 2).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(FeedError);
  expect(failure).toMatchObject({ status: 'DATA_LOSS' });
});

test('an abort at any moment of the start of a call ends a watch', async () => {
  const server = await ScriptedServer.start(silence);
  for (let turns = 0; turns < 60; turns++) {
    const controller = new AbortController();
    const abortLater = async (): Promise<void> => {
      for (let i = 0; i < turns; i++) await Promise.resolve();
      controller.abort();
    };
    const feed = client(server.address, {
      token: () => {
        void abortLater();
        return 'x';
      },
    });
    const watch = take(feed.watch('t', { signal: controller.signal }), 1);
    expect(await within(watch, `the end of a watch aborted after ${turns} turns`)).toEqual([]);
  }
});

test('a deadline that a proxy has set is a break like others', async () => {
  const server = await ScriptedServer.start(http(504), events('a'));
  expect(bodies(await take(client(server.address).watch('t'), 1))).toEqual(['a']);
});

test('a deadline that nobody here has set ends no watch and no upload', async () => {
  const server = await ScriptedServer.start(status(4, 'upstream request timeout'), events('a'));
  expect(bodies(await take(client(server.address).watch('t'), 1))).toEqual(['a']);
  const stored: string[] = [];
  const uploads = await ScriptedServer.start(status(4, 'timeout'), storeUpload(stored));
  await client(uploads.address).upload('t', ['a']);
  expect(stored).toEqual(['a']);
});

test('a watch whose gap does not close waits between its attempts', async () => {
  const metadata = { earliest: '0000000001k3x9qz' };
  const server = await ScriptedServer.start(
    status(11, 'gone', { reason: 'CURSOR_EXPIRED', metadata }),
  );
  const feed = client(server.address, { retry: { initial: 100, max: 100 } });
  const signal = AbortSignal.timeout(500);
  await take(feed.watch('t', { from: 'earliest', expired: 'earliest', signal }), 1);
  expect(server.calls.length).toBeLessThan(15);
});

test('an expired cursor without a cursor to go on from ends a watch', async () => {
  const server = await ScriptedServer.start(status(11, 'gone', { reason: 'CURSOR_EXPIRED' }));
  const options = { from: { cursor: '0000000001k3x9qz' }, expired: 'earliest' } as const;
  await expect(take(client(server.address).watch('t', options), 1)).rejects.toMatchObject({
    reason: 'CURSOR_EXPIRED',
  });
});

test('a chat does not wait for ever for a server that says nothing', async () => {
  const server = await ScriptedServer.start(silence, (stream) => {
    beginChat(stream);
    stream.resume();
  });
  const chat = client(server.address, { retry: { initial: 20, max: 100 } }).chat('r', {
    from: 'ada',
  });
  await within(chat.send('hello'), 'the second call', 60_000);
  expect(server.calls).toHaveLength(2);
  await expect(chat.leave()).rejects.toThrow('has not said within 10 s that it has all');
});
