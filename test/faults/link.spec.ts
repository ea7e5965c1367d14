import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { Link } from '../../bench/link.js';
import { shortLivedProxy } from '../../client/test/cli/servers.js';
import { FaultProxy } from '../../client/test/fault-proxy.js';
import { BreakableLink } from '../support/breakable-link.js';
import { standStill, until } from '../support/wait.js';

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

/** Starts each proxy that tests put in front of a server. They return its address. */
const PROXIES: Record<string, (target: string) => Promise<string>> = {
  Link: async (target) => closedAfterTest(await Link.to(target)),
  BreakableLink: async (target) => closedAfterTest(await BreakableLink.to(target)),
  FaultProxy: async (target) => (await FaultProxy.start(() => target)).address,
  shortLivedProxy: (target) => shortLivedProxy(target, 60_000),
};

function closedAfterTest(link: { readonly address: string; close(): void }): string {
  onTestFinished(() => link.close());
  return link.address;
}

test.each(Object.keys(PROXIES))(
  'the end of a connection comes after all its bytes, also where the proxy (%s) is still connecting to its target',
  async (proxy) => {
    const received: string[] = [];
    const server = createServer((socket) => {
      let text = '';
      socket.on('error', () => {}).on('data', (bytes) => (text += bytes));
      socket.on('close', () => received.push(text));
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    // A name takes a while to be looked up.
    const address = await PROXIES[proxy](`localhost:${(server.address() as AddressInfo).port}`);
    const [host, near] = address.split(':');
    for (let i = 0; i < 200; i++)
      connect(Number(near), host)
        .on('error', () => {})
        .end(SENT);
    await until(
      () => received.length === 200,
      () => `${received.length} ends`,
    );
    expect(received.filter((text) => text !== SENT)).toEqual([]);
  },
);
