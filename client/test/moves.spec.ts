import { lookup } from 'node:dns/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Chat, FeedError, LogEntry, WatchState } from '@feed-events/client';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../../test/support/nats.js';
import { ServiceProcess, temporaryDirectory } from '../../test/support/service.js';
import { until, within } from '../../test/support/wait.js';
import { WatchRequest } from '../src/gen/feed/v1/feed.js';
import { MessageSplitter } from '../src/grpc/frames.js';
import { FaultProxy } from './fault-proxy.js';
import { answerThen, cursorAt, events, ScriptedServer, status } from './scripted-server.js';
import { bodies, client, numbers, Subject, take } from './service.js';
import { Numbers } from './numbers.js';

vi.mock('node:dns/promises', { spy: true });

const MOVES = { FEED_MAX_CONNECTION_AGE: '1s', FEED_MAX_CONNECTION_AGE_GRACE: '300ms' };

/** How often each watch is moved before the test ends. */
const TIMES = 5;

/** Reads a chat in the background. */
function listen(chat: Chat): string[] {
  const texts: string[] = [];
  void (async () => {
    for await (const { text } of chat) texts.push(text);
  })().catch(() => {});
  return texts;
}

/** Watches, uploads and chats over these servers while each of their connections moves again and again. */
async function liveThroughMoves(addresses: string[]): Promise<void> {
  const log: LogEntry[] = [];
  const feed = client(addresses, { log: (entry) => log.push(entry) });
  const moves: Extract<WatchState, { name: 'reconnecting' }>[] = [];
  const source = new Numbers();
  const uploading = feed.upload('t', source);
  let wanted = Infinity;
  const watching = Array.from({ length: 4 }, async () => {
    const got: string[] = [];
    const watch = feed.watch('t', {
      from: 'earliest',
      onState: (state) => state.name === 'reconnecting' && moves.push(state),
    });
    for await (const { body } of watch) {
      got.push(body);
      if (got.length >= wanted) break;
    }
    return got;
  });
  const [ada, bob] = ['ada', 'bob'].map((from) => feed.chat('room', { from }));
  listen(ada);
  const toBob = listen(bob);
  await until(() => moves.length >= TIMES * watching.length, 'the moves', 60_000);
  source.isDone = true;
  const { stored } = await within(uploading, 'the upload');
  wanted = stored + 1;
  await feed.upload('t', ['last']);
  for (const got of await within(Promise.all(watching), 'the watches'))
    expect(got).toEqual([...numbers(0, source.count), 'last']);
  // A call that crosses the server's GOAWAY is refused by HTTP/2, before the server has seen it.
  const isRefused = ({ message }: FeedError): boolean =>
    message.endsWith('by a reset with HTTP/2 error 7');
  const breaks = moves.filter(({ reason }) => reason.reason !== 'MOVED' && !isRefused(reason));
  expect(breaks.map(({ reason }) => String(reason))).toEqual([]);
  // Two refusals in a row are no move: the second one is backed off from.
  expect(moves.filter(({ wait, reason }) => wait > 0 && !isRefused(reason))).toEqual([]);
  const warnings = log.filter(
    ({ level, error }) => level === 'warn' && !(error && isRefused(error)),
  );
  expect(warnings.map(({ message }) => message)).toEqual([]);
  await until(async () => {
    await ada.send('still here');
    return toBob.includes('still here');
  }, 'the room');
}

test('watches, an upload and a chat of one process go on through many moves: each event once, no move has a wait or a warning', async () => {
  const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory(), ...MOVES });
  await liveThroughMoves([service.grpcAddress]);
});

describe.skipIf(!NATS_SERVER)('with jetstream', () => {
  let servers: NatsServer[];
  beforeAll(async () => void (servers = await NatsServer.start(1, { jetstream: '' })));
  afterAll(() => Promise.all(servers.map((server) => server.remove())));

  test('they go on through many moves between two replicas', async () => {
    const settings = { ...jetstreamSettings(servers), ...MOVES };
    const replicas = [await ServiceProcess.start(settings), await ServiceProcess.start(settings)];
    await liveThroughMoves(replicas.map(({ grpcAddress }) => grpcAddress));
  });
});

test('a call that moves is made again at once, however often that happens', async () => {
  const moved = status(14, 'go on', { reason: 'MOVED' });
  const server = await ScriptedServer.start(moved, moved, moved, moved, moved, moved, events('a'));
  const waits: number[] = [];
  const feed = client(server.address, { retry: { initial: 10_000, max: 10_000 } });
  const onState = (state: WatchState): void => {
    if (state.name === 'reconnecting') waits.push(state.wait);
  };
  expect(bodies(await take(feed.watch('t', { onState }), 1))).toEqual(['a']);
  expect(waits).toEqual([0, 0, 0, 0, 0, 0]);
});

test('a watch to which nothing has come goes on after the cursor that the server names', async () => {
  const cursor = '0000000007k3x9qz';
  const moved = status(14, 'go on', { reason: 'MOVED', metadata: { cursor } });
  const server = await ScriptedServer.start(moved, events('a'));
  const requests: WatchRequest[] = [];
  server.onRequest = (bytes) => {
    for (const message of new MessageSplitter(2 ** 20).push(bytes))
      requests.push(WatchRequest.decode(message));
  };
  const watch = client(server.address).watch('t', { from: { last: 5 } });
  expect(bodies(await take(watch, 1))).toEqual(['a']);
  await until(() => requests.length === 2, 'both requests');
  expect(requests[0]).toMatchObject({ last: 5 });
  expect(requests[1]).toMatchObject({ afterCursor: cursor });
});

/** More than a call holds for a consumer that is slow, and less than the server may send ahead. */
const UNREAD = numbers(0, 500).map((n) => n.padEnd(1_000, '.'));

test('a watch whose consumer is behind when it moves loses nothing, though its connection breaks meanwhile', async () => {
  const moved = status(14, 'go on', { reason: 'MOVED', metadata: { cursor: cursorAt(500) } });
  const allRead = Promise.withResolvers<void>();
  const server = await ScriptedServer.start(
    answerThen(events(...UNREAD), (stream, headers) => {
      const session = stream.session!;
      // The client answers a PING once it has read what was sent before it.
      stream.on('close', () => session.ping(() => allRead.resolve()));
      moved(stream, headers);
    }),
    events('last'),
  );
  const proxy = await FaultProxy.start(() => server.address);
  const got: string[] = [];
  for await (const { body } of client(proxy.address).watch('t', { from: 'earliest' })) {
    if (got.push(body) === 1) {
      await within(allRead.promise, 'the end of the call');
      proxy.disturb((below) => (below === 4 ? 2 : 0)); // half-closes the connection
      await until(() => proxy.connections === 0, 'the end of the connection');
    }
    if (body === 'last') break;
  }
  expect(got).toEqual([...UNREAD, 'last']);
  expect(server.calls).toHaveLength(2);
});

test('a watch whose consumer is behind when the server drains loses nothing, and holds no connection to it', async () => {
  const subject = await Subject.start();
  await client(subject.address).upload('t', UNREAD);
  const got: string[] = [];
  for await (const { body } of subject.client().watch('t', { from: 'earliest' })) {
    if (got.push(body) === 1) {
      await until(() => subject.proxy.toClientBytes > 500_000, 'what the server sends ahead');
      await subject.service.kill('SIGTERM');
      await until(() => subject.proxy.connections === 0, 'the end of the connection');
      await subject.restart();
      await client(subject.address).upload('t', ['last']);
    }
    if (body === 'last') break;
  }
  expect(got).toEqual([...UNREAD, 'last']);
});

test('after a move, names are looked up again: a server that came meanwhile gets its share', async () => {
  const old = await ScriptedServer.start(status(14, 'go on', { reason: 'MOVED' }));
  const port = Number(old.address.split(':')[1]);
  const added = await ScriptedServer.startOn('127.0.0.2', port, events('a'));
  const addresses = ['127.0.0.1'];
  const mocked = vi.mocked(lookup as (host: string, options: { all: true }) => Promise<object[]>);
  mocked.mockImplementation(async () => {
    const named = addresses.map((address) => ({ address, family: 4 }));
    addresses[1] = '127.0.0.2';
    return named;
  });
  const feed = client(`dns:///feed.test:${port}`);
  expect(bodies(await take(feed.watch('t'), 1))).toEqual(['a']);
  expect(added.calls).toHaveLength(1);
  expect(old.calls.length).toBeLessThanOrEqual(2); // once again, if it is its turn
});
