import { connect, type Socket } from 'node:net';
import { expect, onTestFinished, test, vi } from 'vitest';
import { LiveCalls } from '../../src/feed/live-calls.js';
import { type Running, runService } from '../support/service.js';
import { until } from '../support/wait.js';

const get = (path: string): string =>
  `GET ${path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson, */*\r\n\r\n`;
/** As lines of JSON, nothing is written to it while there are no events. */
const WATCH = get('/v1/events?topic=orders');

interface Client {
  readonly socket: Socket;
  received: string;
}

async function start(): Promise<{ service: Running; client: Client }> {
  const service = await runService({ FEED_ENGINE: 'memory' });
  const [host, port] = service.httpAddress.split(':');
  const socket = connect({ host, port: Number(port) });
  onTestFinished(() => void socket.destroy());
  const client = { socket, received: '' };
  socket.on('error', () => {}).setEncoding('latin1');
  socket.on('data', (text: string) => (client.received += text));
  return { service, client };
}

async function openWatch(client: Client): Promise<void> {
  client.socket.write(WATCH);
  await until(() => client.received !== '', 'the beginning of the watch');
}

test.each([
  ['of calls', get('/v1/session')],
  ['that have no host', 'GET / HTTP/1.1\r\n\r\n'],
  ['that expect what is unknown', 'GET / HTTP/1.1\r\nHost: localhost\r\nExpect: much\r\n\r\n'],
])(
  'requests %s that come behind a watch without end close the connection, and few are served',
  async (_, request) => {
    const { service, client } = await start();
    await openWatch(client);
    client.socket.write(request.repeat(1_000));
    await until(() => client.socket.closed, 'the end of the connection');
    await until(() => [...service.app.get(LiveCalls)].length === 0, 'the end of the calls');
    const ends = service.log.filter(({ msg }) => msg === 'call ended');
    expect(ends.length).toBeLessThanOrEqual(16);
  },
);

test('a client that sends 16 requests ahead of their answers gets all of them', async () => {
  const { client } = await start();
  const most = 2_000;
  let sent = 16;
  client.socket.write(get('/healthz').repeat(sent));
  let answers = 0;
  client.socket.on('data', (text: string) => {
    answers += text.split('HTTP/1.1 200').length - 1;
    const more = Math.min(most, answers + 16) - sent;
    if (more > 0) client.socket.write(get('/healthz').repeat(more));
    sent += Math.max(0, more);
  });
  await until(() => client.socket.closed || answers === most, 'all answers');
  expect(answers).toBe(most);
});

test('a watch behind which so much waits that its connection is not read ends, also if its client has gone', async () => {
  // A watch looks every 10 s whether its connection is read.
  vi.useFakeTimers({ toFake: ['setInterval'] });
  onTestFinished(() => void vi.useRealTimers());
  const { service, client } = await start();
  await openWatch(client);
  const ends = () => service.log.filter(({ msg }) => msg === 'call ended').length;
  client.socket.write(get('/v1/openapi.json').repeat(12) + get('/v1/session'));
  await until(() => ends() === 1, 'the answers');
  // At the next request, node looks how much waits.
  client.socket.write(get('/v1/session'));
  await until(() => ends() === 2, 'the next request');
  client.socket.destroy();
  vi.advanceTimersByTime(15_000);
  await until(() => [...service.app.get(LiveCalls)].length === 0, 'the end of the watch');
});
