import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { RecentSteps, STEP_SECONDS } from '../../src/feed/recent-steps.js';
import { connectAdmin } from '../support/admin.js';
import { upload } from '../support/client.js';
import { ask, EventStream } from '../support/http.js';
import { runService, temporaryDirectory } from '../support/service.js';
import { Issuer } from '../support/tokens.js';
import { eventually } from '../support/wait.js';

const event = (topic: string, body: string) => ({ topic, id: body, body });

interface TopicJson {
  readonly topic: string;
  readonly events: string;
  readonly bytes: string;
  readonly oldest?: { readonly cursor: string; readonly storedAt: string };
  readonly newest?: { readonly cursor: string; readonly storedAt: string };
  readonly watches: number;
}

describe('what FeedAdmin has', () => {
  test('topics are listed, described and removed as over gRPC, with 64-bit numbers as texts', async () => {
    const service = await runService({ FEED_ENGINE: 'memory' });
    const { httpAddress, client } = service;
    await upload(client, [
      event('a.1', 'x'),
      event('a/2.ü', 'y'),
      event('b', 'z'),
      event('b', 'w'),
    ]);
    const watch = await EventStream.open(httpAddress, 'topic=b');
    const { topics } = await connectAdmin(service.grpcAddress).listTopics();

    const all = (await ask(httpAddress, '/v1/topics')).json as {
      topics: TopicJson[];
      replica: string;
    };
    expect(all.replica).toMatch(/^.+\/[0-9a-f]{6}$/);
    expect(all).toHaveProperty('nextPageToken', '');
    expect(
      all.topics.map(({ topic, events, bytes, oldest }) => [topic, events, bytes, oldest?.cursor]),
    ).toEqual(
      topics.map(({ topic, events, bytes, oldest }) => [
        topic,
        `${events}`,
        `${bytes}`,
        oldest?.cursor,
      ]),
    );
    expect(all.topics.find(({ topic }) => topic === 'b')).toMatchObject({
      events: '2',
      watches: 1,
      newest: { storedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/) },
    });
    watch.close();

    const page = (await ask(httpAddress, '/v1/topics?limit=1&prefix=a')).json as {
      topics: TopicJson[];
      nextPageToken: string;
    };
    expect(page.topics).toHaveLength(1);
    const token = encodeURIComponent(page.nextPageToken);
    const next = await ask(httpAddress, `/v1/topics?limit=1&prefix=a&after=${token}`);
    expect((next.json as typeof page).topics.map(({ topic }) => topic)).not.toEqual(
      page.topics.map(({ topic }) => topic),
    );

    expect((await ask(httpAddress, '/v1/topics/a%2F2.%C3%BC')).json).toMatchObject({
      topic: { topic: 'a/2.ü', events: '1' },
    });
    expect((await ask(httpAddress, '/v1/topics/a%20b')).json).toMatchObject({
      reason: 'TOPIC_INVALID',
    });
    expect((await ask(httpAddress, '/v1/topics/a.1')).json).toMatchObject({
      topic: { topic: 'a.1', events: '1' },
    });
    const removed = await ask(httpAddress, '/v1/topics/b', { method: 'DELETE' });
    expect(removed.json).toMatchObject({ removed: { topic: 'b', events: '2' } });
    const empty = (await ask(httpAddress, '/v1/topics/b')).json as { topic: TopicJson };
    expect(empty.topic).toEqual({ topic: 'b', events: '0', bytes: '0', watches: 0 });
    expect((await ask(httpAddress, '/v1/topics?limit=x')).json).toMatchObject({
      reason: 'REQUEST_INVALID',
    });
  });

  test('streams of both doors are listed, and one is ended', async () => {
    const { httpAddress, client } = await runService({ FEED_ENGINE: 'memory' });
    await upload(client, [event('orders', 'a')]);
    const stream = await EventStream.open(httpAddress, 'topic=orders&topic=others.>&from=earliest');
    await stream.has(1);
    const watch = client.Watch({ topic: 'orders' });
    watch.on('error', () => {});
    await new Promise((resolve) => watch.on('metadata', resolve));
    const list = async () =>
      (await ask(httpAddress, '/v1/streams')).json as {
        replica: string;
        streams: { id: string; method: string; topics: string[]; events: string }[];
      };
    const { streams, replica } = await list();
    expect(streams).toEqual([
      {
        id: expect.stringMatching(/^[0-9a-f]{6}-\d+$/),
        method: '/http/Watch',
        principal: '',
        peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
        topics: ['orders', 'others.>'],
        startedAt: expect.stringMatching(/Z$/),
        events: '1',
        bytes: expect.stringMatching(/^\d+$/),
        behind: '0',
        replica,
      },
      expect.objectContaining({ method: '/feed.v1.FeedService/Watch', topics: ['orders'] }),
    ]);
    const ended = await ask(httpAddress, `/v1/streams/${streams[0].id}`, { method: 'DELETE' });
    expect(ended.json).toMatchObject({ ended: { id: streams[0].id, replica } });
    await stream.ended();
    expect(stream.problem).toMatchObject({ reason: 'ENDED_BY_OPERATOR' });
    await eventually(async () => expect((await list()).streams).toHaveLength(1));
    const again = await ask(httpAddress, `/v1/streams/${streams[0].id}`, { method: 'DELETE' });
    expect([again.status, again.json]).toMatchObject([404, { reason: 'STREAM_UNKNOWN' }]);
    watch.cancel();
  });

  test('needs the verb admin, and for what is of all topics, for all of them', async () => {
    const issuer = await Issuer.create();
    const policy = [
      { principals: ['root'], verbs: ['admin', 'upload'], topics: ['>'] },
      { principals: ['ann'], verbs: ['admin'], topics: ['orders.>'] },
      { principals: ['bob'], verbs: ['watch'], topics: ['>'] },
    ];
    const file = join(temporaryDirectory(), 'policy.yaml');
    writeFileSync(file, JSON.stringify({ rules: policy }));
    const { httpAddress } = await runService({
      FEED_ENGINE: 'memory',
      ...issuer.settings(),
      FEED_POLICY_FILE: file,
    });
    const as = async (sub: string, path: string, method = 'GET') => {
      const headers = { authorization: `Bearer ${await issuer.token({ sub })}` };
      return (await ask(httpAddress, path, { headers, method })).status;
    };
    const paths = [
      '/v1/topics',
      '/v1/topics/orders.x',
      '/v1/topics/other',
      '/v1/streams',
      '/v1/stats',
    ];
    const all = (sub: string) => Promise.all(paths.map((path) => as(sub, path)));
    expect(await all('root')).toEqual([200, 200, 200, 200, 200]);
    expect(await all('ann')).toEqual([200, 200, 403, 200, 403]);
    expect(await all('bob')).toEqual([403, 403, 403, 403, 403]);
    expect(await as('bob', '/v1/topics/other', 'DELETE')).toBe(403);
    expect((await ask(httpAddress, '/v1/topics')).status).toBe(401);
  });
});

test('GET /v1/stats has what is now, and steps of what was', async () => {
  const service = await runService({ FEED_ENGINE: 'memory' });
  const { httpAddress, client } = service;
  const stream = await EventStream.open(httpAddress, 'topic=orders');
  const read = async () => (await ask(httpAddress, '/v1/stats')).json as Stats;
  interface Stats {
    now: Record<string, unknown>;
    steps: Record<string, (number | null)[]>;
  }
  await upload(client, [event('orders', 'a'), event('orders', 'b')]);
  await stream.has(2);
  const first = await read();
  expect(first).toMatchObject({
    replica: expect.stringContaining('/'),
    version: expect.stringMatching(/^\d/),
    engine: 'memory',
    durability: 'DURABILITY_MEMORY',
    state: 'ready',
    stepSeconds: STEP_SECONDS,
    now: {
      watches: 1,
      uploads: 0,
      chats: 0,
      rooms: 0,
      watchesBehind: 0,
      logBytes: expect.any(Number),
      diskFreeBytes: null,
      oldest: { cursor: stream.events[0].cursor },
      newest: { cursor: stream.events[1].cursor },
      head: stream.events[1].cursor,
    },
  });
  const sum = (values: (number | null)[]) =>
    values.reduce<number>((all, value) => all + (value ?? 0), 0);
  const { steps } = await eventually(async () => {
    const stats = await read();
    expect(sum(stats.steps.eventsIn)).toBeGreaterThan(0);
    expect(sum(stats.steps.eventsOut)).toBeGreaterThan(0);
    return stats;
  });
  expect(steps.watches.at(-1)).toBe(1);
  const [ackP50] = steps.ackP50.filter((value) => value !== null);
  expect(ackP50).toBeGreaterThan(0);
  for (const column of Object.values(steps)) expect(column).toHaveLength(steps.at.length);
  expect(service.app.get(RecentSteps).all.length).toBeLessThanOrEqual(180);
});
