import { once } from 'node:events';
import { connect, createServer as createTcpServer, type Socket } from 'node:net';
import { promisify } from 'node:util';
import { ServerCredentials } from '@grpc/grpc-js';
import { expect, onTestFinished, test } from 'vitest';
import { createServer } from '../../src/grpc/transport/grpc-js.js';
import { until } from '../support/wait.js';

const MAX = 6;
const HTTP2 = { streamWindow: 64 * 1024, resetBurst: 1_000, headerBytes: 64 * 1024 };

/** Starts a server that listens on two addresses, as for a host name with two, and that failed to listen on a third. */
async function serveTwo() {
  let refused = 0;
  const limit = { max: MAX, onRefused: () => void refused++ };
  const server = createServer({}, HTTP2, { onSession: () => {} }, limit);
  onTestFinished(() => server.forceShutdown());
  const bind = (address: string): Promise<number> =>
    promisify(server.bindAsync.bind(server))(address, ServerCredentials.createInsecure());
  const port = await bind('127.0.0.1:0');
  await bind(`127.0.0.2:${port}`);
  const other = createTcpServer().listen(port, '127.0.0.3');
  onTestFinished(() => void other.close());
  await once(other, 'listening');
  await expect(bind(`127.0.0.3:${port}`)).rejects.toThrow('EADDRINUSE');
  /** Connects, and resolves once the server has taken or refused the connection. */
  const open = async (host: string): Promise<Socket> => {
    const before = refused;
    const socket = connect(port, host).on('error', () => {});
    onTestFinished(() => void socket.destroy());
    await once(socket, 'connect');
    const isTaken = once(socket, 'data').then(() => true); // the server's SETTINGS
    let taken = false;
    void isTaken.then(
      () => (taken = true),
      () => {},
    );
    await until(() => taken || refused > before, 'an answer');
    return socket;
  };
  return { open, refused: () => refused };
}

test('a server that listens on several addresses counts the connections to all of them together', async () => {
  const { open, refused } = await serveTwo();
  const first = await open('127.0.0.1');
  for (let i = 1; i < MAX; i++) await open('127.0.0.1');
  expect(refused()).toBe(0);
  await open('127.0.0.1');
  await open('127.0.0.2');
  expect(refused()).toBe(2);

  first.destroy();
  let tries = 0;
  await until(async () => {
    tries++;
    await open('127.0.0.2');
    return refused() < 2 + tries;
  }, 'room for a connection to the other address');
  const full = refused();
  await open('127.0.0.1');
  await open('127.0.0.2');
  expect(refused()).toBe(full + 2);
});
