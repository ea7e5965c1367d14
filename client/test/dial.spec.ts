import { spawn } from 'node:child_process';
import dns from 'node:dns';
import { once } from 'node:events';
import { syncBuiltinESMExports } from 'node:module';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { platform } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test, vi } from 'vitest';
import type { Feed } from '@feed-events/client';
import { until, within } from '../../test/support/wait.js';
import { client, Subject } from './service.js';

/** Connections that fill the queue of the listener that takes none. The kernel gives each listener about half of them. */
const FILLING = 40;
/** Each of these connects by itself, so that about half of them come to the dead end first. */
const CLIENTS = 12;

// Only Linux spreads the connections of a port over the sockets that share it.
test.skipIf(platform() !== 'linux')(
  'a connection that a load balancer has led to a server that is gone is made again at once',
  { timeout: 120_000 },
  async () => {
    const subject = await Subject.start();
    const [host, target] = subject.address.split(':');
    const sockets = new Set<Socket>();
    const keep = (socket: Socket): Socket => {
      sockets.add(socket);
      return socket.on('error', () => {}).on('close', () => sockets.delete(socket));
    };
    onTestFinished(() => sockets.forEach((socket) => socket.destroy()));
    const balanced = createServer((socket) => {
      const served = keep(connect(Number(target), host));
      keep(socket).pipe(served).pipe(socket);
      socket.on('close', () => served.destroySoon());
    }).listen({ port: 0, host: '127.0.0.1', reusePort: true });
    await once(balanced, 'listening');
    onTestFinished(() => void balanced.close());
    const { port } = balanced.address() as AddressInfo;

    const deadEnd = spawn(
      process.execPath,
      [fileURLToPath(new URL('dead-end.ts', import.meta.url)), String(port)],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    onTestFinished(() => void deadEnd.kill('SIGKILL'));
    await once(deadEnd.stdout, 'data');
    for (let i = 0; i < FILLING; i++) keep(connect(port, '127.0.0.1'));

    const feeds = Array.from({ length: CLIENTS }, () =>
      client(`127.0.0.1:${port}`, { connectTimeout: 90_000 }),
    );
    const uploads = feeds.map((feed, i) => feed.upload('t', [String(i)]));
    // The kernel alone would ask the dead end again and again, for all of connectTimeout.
    const summaries = await within(Promise.all(uploads), 'all uploads', 60_000);
    expect(summaries.map(({ stored }) => stored)).toEqual(feeds.map(() => 1));
  },
);

/** Makes DNS give no answer. Returns the lookups that wait for one: each answers its lookup with 127.0.0.1. */
function holdLookups(): (() => void)[] {
  const waiting: (() => void)[] = [];
  const hold = (_host: string, _options: unknown, callback: (...answer: unknown[]) => void): void =>
    void waiting.push(() => callback(null, [{ address: '127.0.0.1', family: 4 }]));
  const spies = [
    vi.spyOn(dns, 'lookup').mockImplementation(hold as never),
    vi.spyOn(dns.promises, 'lookup').mockImplementation(() => new Promise(() => {})),
  ];
  syncBuiltinESMExports();
  onTestFinished(() => {
    for (const answer of waiting) answer();
    for (const spy of spies) spy.mockRestore();
    syncBuiltinESMExports();
  });
  return waiting;
}

// Node can't cancel a lookup, and a process lives until the last one has its answer.
test('a name that DNS does not answer is looked up once at a time, by however many attempts and clients', async () => {
  const lookups = holdLookups();
  const failures: string[] = [];
  for (let clients = 0; clients < 2; clients++) {
    const feed = client('unanswered.example:1', {
      connectTimeout: 1_200,
      log: ({ message }) => void (message.includes('did not answer') && failures.push(message)),
    });
    void (async () => {
      for await (const _ of feed.watch('t'));
    })();
  }
  await until(() => failures.length >= 6, 'attempts');
  expect(lookups).toHaveLength(1);
});

test('a name that DNS answers late is connected to once', async () => {
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    onTestFinished(() => void socket.destroy());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const lookups = holdLookups(); // The server's own listen() looks its host up, too.
  const feed = client(`late.example:${port}`);
  feed.upload('t', ['a']).catch(() => {});
  await sleep(2_500);
  for (const answer of lookups) answer();
  await until(() => connections > 0, 'a connection');
  await sleep(300);
  expect(connections).toBe(1);
});

test.each([
  ['its signal fires', (stopping: AbortController) => stopping.abort()],
  ['the client is closed', (_: AbortController, feed: Feed) => feed.close()],
])('a call of an operator that waits for DNS ends when %s', async (_, end) => {
  holdLookups();
  const feed = client('dns:///unanswered.example:1');
  const stopping = new AbortController();
  const { signal } = stopping;
  const calls: Promise<unknown>[] = [
    feed.admin.endStream('1', { signal }),
    feed.admin.listStreams({ signal }).next(),
  ];
  setTimeout(() => end(stopping, feed), 100);
  for (const call of calls)
    await expect(within(call, 'the end')).rejects.toMatchObject({ status: 'CANCELLED' });
});
