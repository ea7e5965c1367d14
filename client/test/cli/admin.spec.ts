import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { eventually, until } from '../../../test/support/wait.js';
import { runFeed, startFeed } from './run-command.js';
import { startService, store } from './topic.js';

const objects = (text: string): Record<string, unknown>[] =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe('feed topics and feed topic', () => {
  test('list topics, describe one and remove it', async () => {
    const { grpcAddress: address } = await startService();
    const env = { FEED_ADDRESS: address };
    expect(await runFeed(['topics'], env)).toEqual({ code: 0, stdout: '', stderr: '0 topics\n' });
    await store(address, 'orders.eu', ['a', 'b', 'c']);
    await store(address, 'orders.us', ['d']);
    await store(address, 'audit', ['e']);

    const table = await runFeed(['topics', 'orders.'], env);
    expect(table).toMatchObject({ code: 0, stderr: '2 topics\n' });
    const [head, ...rows] = table.stdout.trimEnd().split('\n');
    expect(head).toMatch(/^ +EVENTS +BYTES {2}NEWEST +WATCHES {2}TOPIC$/);
    expect(rows[0]).toMatch(/^ +3 +\d+ {2}\d{4}-\d\d-\d\dT[\d:.]+Z +0 {2}orders\.eu$/);
    expect(rows[1]).toMatch(/ orders\.us$/);
    const json = await runFeed(['topics', '--json'], env);
    expect(objects(json.stdout).map(({ topic, events }) => [topic, events])).toEqual([
      ['audit', 1],
      ['orders.eu', 3],
      ['orders.us', 1],
    ]);

    const one = await runFeed(['topic', 'orders.eu'], env);
    expect(one).toMatchObject({ code: 0, stderr: '' });
    expect(one.stdout).toMatch(
      /^events {3}3 events \([\d,]+ bytes\)\noldest {3}\S+Z {2}cursor \w{16}\nnewest {3}\S+Z {2}cursor \w{16}\nwatches {2}0\n$/,
    );
    const removed = await runFeed(['topic', 'orders.eu', '--delete'], env);
    expect(removed).toMatchObject({ code: 0, stdout: '' });
    expect(removed.stderr).toMatch(/^removed 3 events \([\d,]+ bytes\) of orders\.eu\n$/);
    const again = await runFeed(['topic', 'orders.eu', '--delete', '--json'], env);
    expect(JSON.parse(again.stdout)).toEqual({ topic: 'orders.eu' });
    expect(await runFeed(['topic', 'orders.eu'], env)).toMatchObject({
      stdout: 'events   0 events (0 bytes)\noldest   -\nnewest   -\nwatches  0\n',
    });
    const invalid = await runFeed(['topic', 'a b'], env);
    expect(invalid).toMatchObject({ code: 1, stdout: '' });
    expect(invalid.stderr).toContain('(TOPIC_INVALID)\n');
  });
});

describe('feed streams', () => {
  test('lists what is open, and ends one, whose client gives up with exit code 1', async () => {
    const { grpcAddress: address } = await startService();
    const env = { FEED_ADDRESS: address };
    const watch = startFeed(['watch', 'orders'], env);
    const chat = startFeed(['chat', 'kitchen', '--from', 'ann'], env, 'pipe');
    await until(() => watch.stderr.includes('live') && chat.stderr !== '', 'both');
    const [ofWatch] = await eventually(async () => {
      const { stdout, code } = await runFeed(['streams', '--json'], env);
      expect(code).toBe(0);
      const found = objects(stdout).filter(({ topics }) => topics !== undefined);
      expect(found).toHaveLength(2);
      return found.filter(({ method }) => method === '/feed.v1.FeedService/Watch');
    });
    const table = await runFeed(['streams'], env);
    expect(table.stderr).toBe('2 open streams\n');
    expect(table.stdout).toMatch(/^ID +METHOD +AGE +EVENTS +BEHIND {2}PEER/);
    expect(table.stdout).toMatch(
      new RegExp(
        `^${String(ofWatch.id)} +Watch +\\d.* s +0 +0 {2}127\\.0\\.0\\.1:\\d+ {2}- {2}orders {2}\\S+$`,
        'm',
      ),
    );

    const ended = await runFeed(['streams', '--end', String(ofWatch.id)], env);
    expect(ended).toMatchObject({ code: 0, stdout: '' });
    expect(ended.stderr).toMatch(/^ended: Watch of 127\.0\.0\.1:\d+ {2}- {2}orders\n$/);
    const end = await watch.ended;
    expect(end.stderr).toContain('(ENDED_BY_OPERATOR)\n');
    expect(end.code).toBe(1);
    const unknown = await runFeed(['streams', '--end', String(ofWatch.id)], env);
    expect(unknown.stderr).toContain('(STREAM_UNKNOWN)\n');
    expect(unknown.code).toBe(1);
    chat.process.stdin!.end();
    expect((await chat.ended).code).toBe(0);
  });
});

/** Listens on a free port until the test ends, and never says anything. */
async function silentServer() {
  const sockets: Socket[] = [];
  const server = createServer((socket) => void sockets.push(socket.on('error', () => {})));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { address: `127.0.0.1:${port}`, isReached: () => sockets.length > 0 };
}

test.each([
  [['topic', 't'], 'feed: interrupted before the server answered\n'],
  [
    ['topic', 't', '--delete'],
    'feed: interrupted before the server answered: events of t may have been removed\n',
  ],
  [
    ['streams', '--end', '3f9c2a-17'],
    'feed: interrupted before the server answered: 3f9c2a-17 may have been ended\n',
  ],
  [['topics'], 'interrupted after 0 topics: there may be more\n'],
  [['streams'], 'interrupted after 0 open streams: there may be more\n'],
] as const)(
  'a signal before the answer ends %j with its exit code, and what may be',
  async (args, said) => {
    for (const [signal, code] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
    ] as const) {
      const { address, isReached } = await silentServer();
      const command = startFeed(args, { FEED_ADDRESS: address });
      await until(isReached, 'the command at the server');
      command.process.kill(signal);
      expect(await command.ended).toEqual({ code, stdout: '', stderr: said });
    }
  },
);
