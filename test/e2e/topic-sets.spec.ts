import { type ServiceError, status } from '@grpc/grpc-js';
import { describe, expect, test } from 'vitest';
import { Bell } from '../../src/broker/bell.js';
import { Watches } from '../../src/feed/watch.js';
import type { Event, WatchRequest } from '../../src/gen/feed/v1/feed.js';
import { formatCursor, parseCursor } from '../../src/wire/cursor.js';
import { connectAdmin } from '../support/admin.js';
import { errorInfo, failure, type FeedClient, take, upload } from '../support/client.js';
import { ENGINES, engineForTests } from '../support/nats.js';
import { runService } from '../support/service.js';
import { until } from '../support/wait.js';

const ids = (events: readonly Event[]): string[] => events.map(({ id }) => id);

/** Uploads an event for each text such as `orders.created 7`: its topic and its id. */
async function send(client: FeedClient, ...events: readonly string[]): Promise<string> {
  const { result, error } = await upload(
    client,
    events.map((event) => {
      const [topic, id] = event.split(' ');
      return { topic, id };
    }),
  );
  if (!result) throw error!;
  return result.lastCursor;
}

interface Open {
  readonly events: Event[];
  readonly headers: Promise<{ readonly head: string; readonly earliest: string }>;
  readonly ended: Promise<ServiceError>;
  cancel(): void;
}

function open(client: FeedClient, request: Partial<WatchRequest>): Open {
  const call = client.Watch(request);
  const events: Event[] = [];
  call.on('data', (event: Event) => events.push(event));
  const headers = new Promise<{ head: string; earliest: string }>((resolve) =>
    call.on('metadata', (metadata) =>
      resolve({
        head: String(metadata.get('feed-head')[0]),
        earliest: String(metadata.get('feed-earliest')[0]),
      }),
    ),
  );
  const ended = new Promise<ServiceError>((resolve) => call.on('error', resolve));
  return { events, headers, ended, cancel: () => call.cancel() };
}

const reasonOf = (error: ServiceError): string => errorInfo(error.metadata)!.reason;

const { settings } = engineForTests();

describe.each(ENGINES)('A watch of several topics (%s)', (engine) => {
  const run = () => runService(settings(engine));

  test('gets what is stored and what comes, in the order of the log, whatever the topic', async () => {
    const { client, app } = await run();
    await send(client, 'orders.created 1', 'other 2');
    await send(client, 'orders.paid 3');
    await send(client, 'orders 4', 'orders.eu.paid 5');
    const watch = open(client, { topic: 'orders.*', topics: ['orders.*.paid'], position: 1 });
    await watch.headers;
    await send(client, 'orders.paid 6');
    await send(client, 'other 7', 'orders.created 8');
    await until(() => watch.events.length >= 5, 'five events');
    expect(ids(watch.events)).toEqual(['1', '3', '5', '6', '8']);
    expect(watch.events.map(({ topic }) => topic)).toEqual([
      'orders.created',
      'orders.paid',
      'orders.eu.paid',
      'orders.paid',
      'orders.created',
    ]);
    watch.cancel();
    await until(() => app.get(Watches).open.size === 0, 'its end');
    expect(app.get(Bell).subscriptions).toBe(0);
  });

  test('resumes after any cursor, also as another set', async () => {
    const { client } = await run();
    await send(client, 'a.x 1', 'b 2');
    const cursor = await send(client, 'a.y 3');
    await send(client, 'a.x 4');
    await send(client, 'c 5', 'b 6');
    expect(ids(await take(client, { topics: ['a.*', 'b'], afterCursor: cursor }, 2))).toEqual([
      '4',
      '6',
    ]);
    expect(ids(await take(client, { topics: ['>'], afterCursor: cursor }, 3))).toHaveLength(3);
    expect(ids(await take(client, { topics: ['c'], afterCursor: cursor }, 1))).toEqual(['5']);
  });

  test('starts with the newest n of all its topics together, and since a time', async () => {
    const { client } = await run();
    for (let i = 0; i < 6; i++) await send(client, `${i % 2 === 0 ? 'a' : 'b'} ${i}`, `c x${i}`);
    for (const last of [1, 3, 6, 100]) {
      const expected = Math.min(last, 6);
      const events = await take(client, { topics: ['a', 'b'], last }, expected);
      expect(ids(events)).toEqual(['0', '1', '2', '3', '4', '5'].slice(-expected));
    }
    const since = { seconds: 0, nanos: 0 };
    expect(ids(await take(client, { topics: ['b', 'a'], since }, 6))).toHaveLength(6);
  });

  test('its heartbeats have its first topic and move its cursor', async () => {
    const { client } = await run();
    const watch = open(client, {
      topics: ['nothing.>', 'at.all'],
      heartbeat: { seconds: 1, nanos: 0 },
    });
    await watch.headers;
    const last = await send(client, 'other 1');
    await until(() => watch.events.at(-1)?.cursor === last, 'a heartbeat past the other event');
    expect(watch.events.every(({ topic, id }) => topic === 'nothing.>' && id === '')).toBe(true);
    watch.cancel();
  });

  test('is refused after a cursor where any of its topics lost events, and goes on past that where it asks to', async () => {
    const { client, grpcAddress } = await run();
    const admin = connectAdmin(grpcAddress);
    const before = await send(client, 'a 1', 'b 2');
    await send(client, 'a 3');
    const gone = await send(client, 'b 4');
    await send(client, 'a 5');
    await admin.deleteTopic('b');
    await send(client, 'b 6');

    const refused = await failure(client.Watch({ topics: ['a', 'b'], afterCursor: before }));
    expect(refused.code).toBe(status.OUT_OF_RANGE);
    expect(reasonOf(refused)).toBe('CURSOR_EXPIRED');
    const { earliest } = errorInfo(refused.metadata)!.metadata;
    expect(parseCursor(earliest)!.position).toBeGreaterThanOrEqual(parseCursor(gone)!.position);
    expect(ids(await take(client, { topics: ['a', 'b'], afterCursor: earliest }, 2))).toEqual([
      '5',
      '6',
    ]);
    expect(ids(await take(client, { topic: 'a', afterCursor: before }, 2))).toEqual(['3', '5']);

    // From the earliest event that any topic holds, which is before feed-earliest.
    const whole = open(client, { topics: ['>'], position: 1 });
    await until(() => whole.events.length >= 4, 'four events');
    expect(ids(whole.events)).toEqual(['1', '3', '5', '6']);
    const resumed = { topics: ['>'], afterCursor: whole.events[0].cursor };
    expect((await whole.headers).earliest > whole.events[0].cursor).toBe(true);
    whole.cancel();
    expect(reasonOf(await failure(client.Watch(resumed)))).toBe('CURSOR_EXPIRED');
    expect(ids(await take(client, { ...resumed, skipRemoved: true }, 3))).toEqual(['3', '5', '6']);
    const one = { topic: 'b', afterCursor: before, skipRemoved: true };
    expect(ids(await take(client, one, 1))).toEqual(['6']);
  });

  test('a pattern that nothing matches yet gets the topics that come', async () => {
    const { client } = await run();
    const watch = open(client, { topics: ['new.>'] });
    await watch.headers;
    await send(client, 'newer 0', 'new.a 1');
    await send(client, 'new.b.c 2');
    await until(() => watch.events.length >= 2, 'two events');
    expect(ids(watch.events)).toEqual(['1', '2']);
    watch.cancel();
  });
});

describe('A watch of several topics', () => {
  const longest = (i: number): string => `${i}.`.padEnd(200, 't');

  test('may name 1,000 topics of the greatest length', async () => {
    const { client } = await runService({ FEED_ENGINE: 'memory' });
    const topics = Array.from({ length: 1_000 }, (_, i) => longest(i));
    const watch = open(client, { topics });
    await watch.headers;
    await send(client, `${topics[999]} 1`, 'other 2', `${topics[0]} 3`);
    await until(() => watch.events.length >= 2, 'two events');
    expect(ids(watch.events).toSorted()).toEqual(['1', '3']);
    watch.cancel();
  });

  test('may have patterns of 10 tokens, and topics of any number of them', async () => {
    const { client } = await runService({ FEED_ENGINE: 'memory' });
    const deep = `${'a.'.repeat(99)}a`;
    const watch = open(client, { topics: [`${'*.'.repeat(9)}*`, `${'b.'.repeat(9)}>`, deep] });
    await watch.headers;
    const below = `${'b.'.repeat(12)}b`;
    await send(client, `${'c.'.repeat(9)}c 1`, `${below} 2`, `${deep} 3`, `${deep}a 4`);
    await until(() => watch.events.length >= 3, 'three events');
    expect(ids(watch.events).toSorted()).toEqual(['1', '2', '3']);
    watch.cancel();
  });

  test.each<[string, Partial<WatchRequest>, string]>([
    ['more than 1,000', { topics: Array.from({ length: 1_500 }, (_, i) => `t${i}`) }, '1000'],
    ['1,001 with `topic`', { topic: 't', topics: Array.from({ length: 1_000 }, longest0) }, ''],
    ['one twice', { topic: 'a', topics: ['b', 'a'] }, 'topic 3 of 3: it is listed twice'],
    ['an invalid one', { topics: ['a', 'b c'] }, 'topic 2 of 2: it has white space'],
    ['an empty one', { topics: ['a', ''] }, 'topic 2 of 2: it is empty'],
    ['a bad pattern', { topics: ['a', 'b.>.c'] }, 'topic 2 of 2: "*" stands for a whole token'],
    ['a bad pattern alone', { topic: 'or*' }, 'topic: "*" stands for a whole token'],
    ['a long pattern', { topics: ['a', `${'a.'.repeat(10)}>`] }, 'a pattern has at most 10 tokens'],
    ['none at all', {}, 'topic: it is empty'],
  ])('with %s is refused', async (_what, request, message) => {
    const { client } = await runService({ FEED_ENGINE: 'memory' });
    const error = await failure(client.Watch(request));
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(reasonOf(error)).toBe('TOPIC_INVALID');
    expect(error.details).toContain(message);
  });

  test('its events are counted by topic where topics are listed', async () => {
    const { client, httpAddress } = await runService({
      FEED_ENGINE: 'memory',
      FEED_METRICS_TOPICS: 'a.b',
    });
    await send(client, 'a.b 1', 'a.c 2', 'a.b 3');
    await take(client, { topics: ['a.*'], position: 1 }, 3);
    const page = await (await fetch(`http://${httpAddress}/metrics`)).text();
    expect(page).toMatch(/^feed_events_sent_total\{topic="a\.b"\} 2$/m);
    expect(page).toMatch(/^feed_events_sent_total 1$/m);
  });

  test('goes on after the cursor of a position that it has looked at, where it waits in a long log', async () => {
    const { client } = await runService({ FEED_ENGINE: 'memory' });
    const last = await send(client, ...Array.from({ length: 30 }, (_, i) => `t${i} ${i}`));
    const { position, epoch } = parseCursor(last)!;
    const between = formatCursor({ epoch, position: position - 10 });
    expect(ids(await take(client, { topics: ['*'], afterCursor: between }, 10))).toHaveLength(10);
  });
});

function longest0(_: unknown, i: number): string {
  return `t${i}`;
}
