import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { platform } from 'node:os';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { within } from '../../test/support/wait.js';
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
