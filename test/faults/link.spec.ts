import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { Link } from '../../bench/link.js';
import { standStill } from '../support/wait.js';

const SENT = 'a'.repeat(1_000);

test('the end of a connection comes after all its bytes, also while the process stands still', async () => {
  const server = createServer((socket) => {
    socket.on('error', () => {}).write(SENT);
    setImmediate(() => socket.end());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const link = await Link.to(`127.0.0.1:${port}`, { bytesPerSecond: 300_000 });
  onTestFinished(() => link.close());
  const [host, near] = link.address.split(':');
  const received = await Promise.all(
    Array.from({ length: 200 }, async (_, i) => {
      const client = connect(Number(near), host);
      let text = '';
      client.on('data', (bytes) => (text += bytes));
      const closed = once(client, 'close');
      // The event loop's time then lags behind performance.now().
      standStill(i % 3);
      await closed;
      return text;
    }),
  );
  expect(received.filter((text) => text !== SENT)).toEqual([]);
});
