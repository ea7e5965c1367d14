import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { FaultProxy } from './fault-proxy.js';

/** More than the proxy and both kernels hold for a client that does not read. */
const SENT = Buffer.from(Uint32Array.from({ length: 8 * 2 ** 20 }, (_, i) => i).buffer);

test('a connection that stalls while it stalls passes on each byte once', async () => {
  const server = createServer((socket) => socket.on('error', () => {}).end(SENT));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const proxy = await FaultProxy.start(() => `127.0.0.1:${(server.address() as AddressInfo).port}`);
  // Chooses the first connection, the second of the four things, and its time.
  const stall = (milliseconds: number): void =>
    proxy.disturb((below) => ({ 1: 0, 4: 1 })[below] ?? milliseconds - 100);

  const [host, port] = proxy.address.split(':');
  const client = connect(Number(port), host);
  const received: Buffer[] = [];
  client.on('data', (bytes: Buffer) => void received.push(bytes));
  await once(client, 'data');
  // The proxy then waits until it can write, which is when the stalls come and end.
  client.pause();
  await sleep(200);
  stall(200);
  stall(100);
  await sleep(300);
  client.resume();
  await once(client, 'end');
  expect(proxy.faults).toBe(2);
  expect(proxy.toClientBytes).toBe(SENT.length);
  expect(Buffer.concat(received).equals(SENT)).toBe(true);
});
