import { type ServiceError, status } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { Event, WatchRequest } from '../../src/gen/feed/v1/feed.js';
import { Watches } from '../../src/feed/watch.js';
import { epochOf, formatCursor, parseCursor } from '../../src/wire/cursor.js';
import { errorInfo, failure, type FeedClient, take, upload } from '../support/client.js';
import { ENGINES, engineForTests } from '../support/nats.js';
import { runService } from '../support/service.js';
import { eventually, until, upToThrice } from '../support/wait.js';

const numbered = (count: number, topic = 'orders', from = 0): Partial<Event>[] =>
  Array.from({ length: count }, (_, i) => ({
    id: String(from + i),
    topic,
    body: `body ${from + i}`,
  }));

const ids = (events: readonly Event[]): string[] => events.map(({ id }) => id);

/** Opens a watch and waits for its headers; collects what it sends. */
async function open(client: FeedClient, request: Partial<WatchRequest>) {
  const call = client.Watch(request);
  const events: Event[] = [];
  call.on('error', () => {});
  call.on('data', (event: Event) => events.push(event));
  const headers = await new Promise<{ head: string; earliest: string }>((resolve, reject) => {
    call.on('metadata', (metadata) =>
      resolve({
        head: String(metadata.get('feed-head')[0]),
        earliest: String(metadata.get('feed-earliest')[0]),
      }),
    );
    call.on('error', reject);
  });
  return { call, events, ...headers };
}

const { settings } = engineForTests();

describe.each(ENGINES)('Watch (%s)', (engine) => {
  const run = () => runService(settings(engine));

  test.each<[string, Partial<WatchRequest>]>([
    ['no start', {}],
    ['an empty cursor', { afterCursor: '' }],
    ['START_POSITION_LIVE', { position: 2 }],
    ['START_POSITION_UNSPECIFIED', { position: 0 }],
    ['last: 0', { last: 0 }],
    ['since in the future', { since: { seconds: Math.floor(Date.now() / 1000) + 3600, nanos: 0 } }],
  ])('a watch with %s sends events stored from now on', async (_what, start) => {
    const { client } = await run();
    await upload(client, numbered(3));
    const watch = await open(client, { topic: 'orders', ...start });
    await upload(client, numbered(2, 'orders', 3));
    await until(() => watch.events.length >= 2, 'two events');
    expect(ids(watch.events)).toEqual(['3', '4']);
    watch.call.cancel();
  });

  test('a watch from earliest sends all stored events, then new ones', async () => {
    const { client } = await run();
    await upload(client, numbered(3));
    const watch = await open(client, { topic: 'orders', position: 1 });
    await upload(client, numbered(2, 'orders', 3));
    await until(() => watch.events.length >= 5, 'five events');
    expect(ids(watch.events)).toEqual(['0', '1', '2', '3', '4']);
    expect(watch.events[0]).toMatchObject({ topic: 'orders', body: 'body 0' });
    watch.call.cancel();
  });

  test('a watch after a cursor goes on strictly after that event, whichever it is', async () => {
    const { client } = await run();
    await upload(client, numbered(10));
    const all = await take(client, { topic: 'orders', position: 1 }, 10);
    for (const [i, { cursor }] of all.slice(0, 9).entries()) {
      expect(ids(await take(client, { topic: 'orders', afterCursor: cursor }, 9 - i))).toEqual(
        ids(all.slice(i + 1)),
      );
    }
  });

  test('a watch after a cursor of another topic goes on with its own events after that position', async () => {
    const { client } = await run();
    await upload(client, numbered(2));
    const { result } = await upload(client, numbered(1, 'others'));
    await upload(client, numbered(2, 'orders', 2));
    const events = await take(client, { topic: 'orders', afterCursor: result!.lastCursor }, 2);
    expect(ids(events)).toEqual(['2', '3']);
  });

  test('a watch with last: n sends the newest n events, or all where there are fewer', async () => {
    const { client } = await run();
    await upload(client, numbered(5));
    await upload(client, numbered(5, 'orders', 5));
    for (const n of [1, 5, 6, 10, 4294967295]) {
      const expected = Math.min(n, 10);
      const events = await take(client, { topic: 'orders', last: n }, expected);
      expect(ids(events)).toEqual(
        ids((await take(client, { topic: 'orders', position: 1 }, 10)).slice(-expected)),
      );
    }
  });

  test('a watch since a time sends what was stored at or after it', async () => {
    const { client } = await run();
    await upload(client, numbered(3));
    await sleep(20);
    const now = Date.now();
    await upload(client, numbered(2, 'orders', 3));
    const since = { seconds: Math.floor(now / 1000), nanos: (now % 1000) * 1e6 };
    expect(ids(await take(client, { topic: 'orders', since }, 2))).toEqual(['3', '4']);
    const year1970 = { seconds: 0, nanos: 0 };
    expect(await take(client, { topic: 'orders', since: year1970 }, 5)).toHaveLength(5);
  });

  test('a watch has its headers at once: feed-head and feed-earliest, cursors to resume after', async () => {
    const { client } = await run();
    await upload(client, numbered(3));
    const watch = await open(client, { topic: 'orders' });
    watch.call.cancel();
    await upload(client, numbered(2, 'orders', 3));
    expect(ids(await take(client, { topic: 'orders', afterCursor: watch.head }, 2))).toEqual([
      '3',
      '4',
    ]);
    expect(await take(client, { topic: 'orders', afterCursor: watch.earliest }, 5)).toHaveLength(5);
  });

  test('a watch of an empty log can be resumed from its headers', async () => {
    const { client } = await run();
    const watch = await open(client, { topic: 'orders' });
    watch.call.cancel();
    await upload(client, numbered(2));
    for (const afterCursor of [watch.head, watch.earliest]) {
      expect(ids(await take(client, { topic: 'orders', afterCursor }, 2))).toEqual(['0', '1']);
    }
  });

  test('a watch sends heartbeats where asked for: topic and cursor, never past an event not yet sent', async () => {
    const { client } = await run();
    await upload(client, numbered(1));
    const watch = await open(client, { topic: 'quiet', heartbeat: { seconds: 1, nanos: 0 } });
    const { result } = await upload(client, numbered(1, 'orders', 1));
    // An upload that takes more than a second lets an earlier heartbeat through before this one.
    await eventually(() =>
      expect(watch.events.at(-1)).toEqual({
        id: '',
        topic: 'quiet',
        body: '',
        at: null,
        attributes: {},
        cursor: result!.lastCursor, // the head: the quiet watch keeps up with the log
      }),
    );
    await upload(client, numbered(1, 'quiet', 2));
    await eventually(() => expect(ids(watch.events)).toContain('2'));
    watch.call.cancel();
    const before = watch.events.slice(0, ids(watch.events).indexOf('2'));
    expect(new Set(ids(before))).toEqual(new Set(['']));
    for (const { cursor } of before)
      expect(ids(await take(client, { topic: 'quiet', afterCursor: cursor }, 1))).toEqual(['2']);
  });

  test('a watch sends no heartbeat that was not asked for, and none while events come', async () => {
    const { client } = await run();
    let next = 0;
    const kindsOfIds = async (): Promise<string> => {
      const silent = await open(client, { topic: 'orders' });
      const busy = await open(client, { topic: 'orders', heartbeat: { seconds: 4, nanos: 0 } });
      for (let i = 0; i < 16; i++) {
        await upload(client, numbered(1, 'orders', next++));
        await sleep(300);
      }
      silent.call.cancel();
      busy.call.cancel();
      expect(ids(silent.events)).not.toContain('');
      return ids(busy.events).includes('') ? 'heartbeats, too' : 'events';
    };
    // A heartbeat is due where a machine takes four seconds for an upload.
    const kinds = await upToThrice(kindsOfIds, (found) => found === 'events');
    expect(kinds).toBe('events');
  });

  test.each<[string, Partial<WatchRequest>, number, string, string[]]>([
    ['no topic', { topic: '' }, status.INVALID_ARGUMENT, 'TOPIC_INVALID', ['index']],
    ['a topic with a space', { topic: 'a b' }, status.INVALID_ARGUMENT, 'TOPIC_INVALID', ['index']],
    ['a bad pattern', { topic: 'a.*b' }, status.INVALID_ARGUMENT, 'TOPIC_INVALID', ['index']],
    ['an unknown position', { position: 9 as never }, status.INVALID_ARGUMENT, 'START_INVALID', []],
    [
      'since out of range',
      { since: { seconds: 1e12, nanos: 0 } },
      status.INVALID_ARGUMENT,
      'START_INVALID',
      [],
    ],
    [
      'a heartbeat below 1 s',
      { heartbeat: { seconds: 0, nanos: 5e8 } },
      status.INVALID_ARGUMENT,
      'HEARTBEAT_INVALID',
      [],
    ],
    [
      'a negative heartbeat',
      { heartbeat: { seconds: -5, nanos: 0 } },
      status.INVALID_ARGUMENT,
      'HEARTBEAT_INVALID',
      [],
    ],
    ['text for a cursor', { afterCursor: 'hello' }, status.INVALID_ARGUMENT, 'CURSOR_INVALID', []],
    [
      "another log's cursor",
      { afterCursor: formatCursor({ epoch: epochOf(0), position: 1 }) },
      status.FAILED_PRECONDITION,
      'EPOCH_CHANGED',
      ['earliest', 'head'],
    ],
  ])('a watch with %s is refused', async (_what, request, code, reason, metadata) => {
    const { client } = await run();
    const error = await failure(client.Watch({ topic: 'orders', ...request }));
    const info = errorInfo(error.metadata)!;
    expect({ code: error.code, reason: info.reason, domain: info.domain }).toEqual({
      code,
      reason,
      domain: 'feed.v1',
    });
    expect(Object.keys(info.metadata).toSorted()).toEqual(metadata);
  });

  test('a watch with a cursor ahead of the log is refused, and told the head', async () => {
    const { client } = await run();
    const { result } = await upload(client, numbered(1));
    const { epoch, position } = parseCursor(result!.lastCursor)!;
    const afterCursor = formatCursor({ epoch, position: position + 1000 });
    const error = await failure(client.Watch({ topic: 'orders', afterCursor }));
    expect(error.code).toBe(status.OUT_OF_RANGE);
    expect(errorInfo(error.metadata)).toMatchObject({
      reason: 'CURSOR_AHEAD',
      metadata: { head: result!.lastCursor },
    });
  });

  test('a watch that retention overtakes is told so, and where it can go on', async () => {
    const { client, log, app } = await runService({
      ...settings(engine),
      FEED_RETENTION_MAX_BYTES: '1MiB',
    });
    const body = 'x'.repeat(10_000);
    const bulk = (from: number) => numbered(400, 'orders', from).map((one) => ({ ...one, body }));
    await upload(client, bulk(0));
    const slow = client.Watch({ topic: 'orders', position: 1 });
    const seen: Event[] = [];
    const ended = new Promise<ServiceError>((resolve) => slow.on('error', resolve));
    slow.on('data', (event: Event) => {
      seen.push(event);
      if (seen.length === 10) slow.pause();
    });
    await until(() => seen.length >= 10, 'the first events');
    // This is more than retention keeps, and more than the tail keeps in memory.
    for (let i = 1; i <= 12; i++) await upload(client, bulk(400 * i));
    slow.resume();
    const error = await ended;
    expect(error.code).toBe(status.OUT_OF_RANGE);
    expect(errorInfo(error.metadata)!.reason).toBe('CURSOR_EXPIRED');
    expect(ids(seen)).toEqual(seen.map((_, i) => String(Number(seen[0].id) + i))); // without a gap until then
    const notices = log.filter(({ msg }) => String(msg).startsWith('events were removed before'));
    expect(notices).toMatchObject([{ level: 40, overtaken: 1, topic: 'orders' }]);
    expect(app.get(Watches).overtaken).toBe(1);

    // Retention may remove more between the calls.
    await eventually(async () => {
      const again = await failure(
        client.Watch({ topic: 'orders', afterCursor: seen.at(-1)!.cursor }),
      );
      expect(errorInfo(again.metadata)!.reason).toBe('CURSOR_EXPIRED');
      const { earliest } = errorInfo(again.metadata)!.metadata;
      const rest = await take(client, { topic: 'orders', afterCursor: earliest }, 50);
      const fromEarliest = await take(client, { topic: 'orders', position: 1 }, 50);
      expect(ids(rest)).toEqual(ids(fromEarliest));
      expect(Number(rest[0].id)).toBeGreaterThan(Number(seen.at(-1)!.id));
    });
  });

  test('the bell wakes a watch, which does not wait for its next poll', async () => {
    const longest = async (): Promise<number> => {
      const { client } = await run();
      const watch = await open(client, { topic: 'orders' });
      const times: number[] = [];
      for (let i = 0; i < 3; i++) {
        await upload(client, numbered(1, 'orders', i));
        const start = performance.now();
        await until(() => watch.events.length > i, 'the event');
        times.push(performance.now() - start);
      }
      watch.call.cancel();
      return Math.max(...times);
    };
    // The poll comes every 5 s. NATS and this process may stand still.
    expect(await upToThrice(longest, (found) => found < 4_000)).toBeLessThan(4_000);
  });

  test('an idle watch whose deadline passes is released', async () => {
    const timeOfEnd = async (): Promise<number> => {
      const { client, app } = await run();
      const call = client.Watch({ topic: 'orders' }, { deadline: Date.now() + 300 });
      expect((await failure(call)).code).toBe(status.DEADLINE_EXCEEDED);
      const start = performance.now();
      await until(() => app.get(Watches).open.size === 0, 'its end');
      return performance.now() - start;
    };
    // The poll comes every 5 s. NATS and this process may stand still.
    expect(await upToThrice(timeOfEnd, (found) => found < 4_000)).toBeLessThan(4_000);
  });

  test('a watch that its client cancels ends, and is logged as CANCELLED', async () => {
    const { client, log } = await run();
    const watch = await open(client, { topic: 'orders' });
    watch.call.cancel();
    await until(() => log.some(({ msg }) => msg === 'call ended'), 'the log line');
    expect(log.find(({ msg }) => msg === 'call ended')).toMatchObject({
      method: '/feed.v1.FeedService/Watch',
      topic: 'orders',
      status: 'CANCELLED',
      events: 0,
    });
  });
});
