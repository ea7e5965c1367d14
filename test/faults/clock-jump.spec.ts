import type { Metadata } from '@grpc/grpc-js';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test, type TestContext } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { parseCursor } from '../../src/wire/cursor.js';
import { type FeedClient, take, upload } from '../support/client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { useShim } from '../support/shim.js';
import { until } from '../support/wait.js';

const HOUR = 3_600;
const JUMPS = [
  { jump: 'an hour ahead', by: HOUR },
  { jump: 'an hour back', by: -HOUR },
];
/** The log's clock runs at least at this share of real time while it catches up with a clock that was set. */
const SLOWEST = 0.9;

/** How long (milliseconds) what is remembered or kept lasts: a busy machine needs seconds for some calls. */
const LASTS = 12_000;

const event = (id: string): Partial<Event> => ({ id, topic: 'orders' });
const positionOf = (cursor: string): number => parseCursor(cursor)!.position;
const idsOf = (events: readonly Event[]): string[] => events.map(({ id }) => id);

/** Stores an event and returns its cursor. */
async function store(client: FeedClient, id: string): Promise<string> {
  const { result, error } = await upload(client, [event(id)]);
  if (!result) throw error!;
  expect(result.duplicates).toBe(0);
  return result.lastCursor;
}

async function isDuplicate(client: FeedClient, id: string): Promise<boolean> {
  return (await upload(client, [event(id)])).result!.duplicates === 1;
}

/** Returns true while retention has not removed the event with this cursor. */
async function isHeld(client: FeedClient, cursor: string): Promise<boolean> {
  const call = client.Watch({ topic: 'orders' });
  call.on('error', () => {});
  const [headers] = (await once(call, 'metadata')) as [Metadata];
  call.cancel();
  return positionOf(headers.get('feed-earliest')[0] as string) < positionOf(cursor);
}

async function untilGone(client: FeedClient, cursor: string): Promise<void> {
  const isGone = async (): Promise<boolean> => !(await isHeld(client, cursor));
  await until(isGone, `the removal of the event at ${cursor}`, undefined, 50);
}

const timestamp = (seconds: number) => ({ seconds: Math.floor(seconds), nanos: 0 });
/** The time of a clock that was never set. */
const realSeconds = () => Date.now() / 1000;

describe('where the wall clock jumps', () => {
  const shim = useShim(new URL('clock.c', import.meta.url));

  /** Makes a machine whose clock a test can set, and whose services use one log, one after the other. */
  function machine(context: TestContext, settings: Record<string, string> = {}) {
    const file = join(temporaryDirectory(), 'offset');
    const all = {
      FEED_DATA_DIR: temporaryDirectory(),
      LD_PRELOAD: shim(context),
      SHIM_CLOCK: file,
      ...settings,
    };
    writeFileSync(file, '0');
    return {
      set: (seconds: number) => writeFileSync(file, String(seconds)),
      start: () => ServiceProcess.start(all),
    };
  }

  test("the service's clock follows the clock that the test sets, as all tests here need", async (context) => {
    const { set, start } = machine(context);
    const client = (await start()).connect();
    for (const by of [0, HOUR, -HOUR]) {
      set(by);
      const cursor = await store(client, '');
      const [stored] = await take(client, { topic: 'orders', last: 1 }, 1);
      expect(stored.cursor).toBe(cursor);
      expect(Math.abs(stored.at!.seconds - realSeconds() - by)).toBeLessThan(60);
    }
  });

  test('watches get every event once, in order, and cursors go on, also over restarts', async (context) => {
    const { set, start } = machine(context);
    const uploaded: Pick<Event, 'id' | 'cursor'>[] = [];
    const delivered: Event[] = [];
    let service = await start();
    for (const by of [HOUR, -HOUR, 0, -HOUR, HOUR]) {
      const client = service.connect();
      const last = delivered.at(-1);
      const watch = client.Watch({
        topic: 'orders',
        ...(last ? { afterCursor: last.cursor } : { position: 1 }),
      });
      watch.on('data', (sent: Event) => delivered.push(sent));
      watch.on('error', () => {});
      for (const offset of [by, -by, by]) {
        set(offset);
        for (let i = 0; i < 5; i++) {
          const id = String(uploaded.length);
          uploaded.push({ id, cursor: await store(client, id) });
        }
      }
      await until(() => delivered.length >= uploaded.length, 'what was uploaded');
      await service.kill('SIGTERM');
      set(by + HOUR);
      service = await start();
    }
    const again = service.connect();
    const all = await take(again, { topic: 'orders', position: 1 }, uploaded.length);
    const known = (events: readonly Event[]) => events.map(({ id, cursor }) => ({ id, cursor }));
    expect(known(delivered)).toEqual(uploaded);
    expect(known(all)).toEqual(uploaded);
    const cursors = uploaded.map(({ cursor }) => cursor);
    expect(cursors).toEqual([...new Set(cursors)].toSorted());
  });

  test.for(JUMPS)(
    '$jump, an id is remembered for the window of real time',
    async ({ by }, context) => {
      const { set, start } = machine(context, { FEED_DEDUP_WINDOW: `${LASTS}ms` });
      const client = (await start()).connect();
      await store(client, 'a');
      set(by);
      expect(await isDuplicate(client, 'a')).toBe(true);
      await store(client, 'b');
      expect(await isDuplicate(client, 'b')).toBe(true);
      await sleep(LASTS / SLOWEST + 100);
      expect(await isDuplicate(client, 'a')).toBe(false);
      expect(await isDuplicate(client, 'b')).toBe(false);
    },
  );

  test.for(JUMPS)('$jump, retention removes events by their real age', async ({ by }, context) => {
    const { set, start } = machine(context, { FEED_RETENTION_MAX_AGE: `${LASTS}ms` });
    const client = (await start()).connect();
    const before = await store(client, 'before');
    set(by);
    const after = await store(client, 'after');
    // An idle log looks for old events once a second, so it would have removed them by then.
    await sleep(1_500);
    expect(await isHeld(client, before)).toBe(true);
    expect(await isHeld(client, after)).toBe(true);
    await untilGone(client, after);
  });

  test.for(JUMPS)(
    '$jump, a watch since a time before the jump has all later events',
    async ({ by }, context) => {
      const { set, start } = machine(context);
      const client = (await start()).connect();
      // This is before both events, by the clock before the jump and by the one after it.
      const since = timestamp(realSeconds() - 1 + Math.min(by, 0));
      await store(client, 'before');
      set(by);
      await store(client, 'after');
      const events = await take(client, { topic: 'orders', since }, 2);
      expect(idsOf(events)).toEqual(['before', 'after']);
    },
  );

  /** Stores `after`, watches since a second before it by the server's clock, and returns the id of the first event. */
  async function firstSinceASecondAgo(context: TestContext, by: number): Promise<string> {
    const { set, start } = machine(context);
    const client = (await start()).connect();
    set(by);
    const since = timestamp(realSeconds() + by - 1);
    await store(client, 'after');
    const watch = client.Watch({ topic: 'orders', since });
    watch.on('error', () => {});
    const first = new Promise<Event>((resolve) => watch.once('data', resolve));
    await once(watch, 'metadata');
    await store(client, 'live');
    return (await first).id;
  }

  test('an hour back, a watch since a second ago has what was stored since', async (context) => {
    expect(await firstSinceASecondAgo(context, -HOUR)).toBe('after');
  });

  test('an hour ahead, a watch since a second ago has what was stored since', async (context) => {
    expect(await firstSinceASecondAgo(context, HOUR)).toBe('after');
  });

  test('an hour back while the service is down, ids are remembered and events kept as long as without it', async (context) => {
    const { set, start } = machine(context, {
      FEED_DEDUP_WINDOW: `${LASTS}ms`,
      FEED_RETENTION_MAX_AGE: `${LASTS}ms`,
    });
    const before = await start();
    const cursor = await store(before.connect(), 'a');
    await before.kill('SIGTERM');
    set(-HOUR);
    const client = (await start()).connect();
    expect(await isDuplicate(client, 'a')).toBe(true);
    expect(await isHeld(client, cursor)).toBe(true);
    await sleep(LASTS / SLOWEST + 100);
    expect(await isDuplicate(client, 'a')).toBe(false);
    await untilGone(client, cursor);
  });

  async function isDuplicateAfterJumpAndRestart(
    context: TestContext,
    by: number,
  ): Promise<boolean> {
    const { set, start } = machine(context);
    const service = await start();
    const client = service.connect();
    await store(client, 'a');
    set(by);
    await store(client, 'b');
    await service.kill('SIGTERM');
    return isDuplicate((await start()).connect(), 'b');
  }

  test('an hour back, ids are remembered after a restart', async (context) => {
    expect(await isDuplicateAfterJumpAndRestart(context, -HOUR)).toBe(true);
  });

  test('ten days back until the service is down, events are held and ids remembered after a restart', async (context) => {
    const { set, start } = machine(context, { FEED_RETENTION_MAX_AGE: '168h' });
    const before = await start();
    const first = await store(before.connect(), 'a');
    set(-10 * 24 * HOUR);
    const second = await store(before.connect(), 'b');
    await before.kill('SIGTERM');
    set(0);
    const client = (await start()).connect();
    expect(await isDuplicate(client, 'b')).toBe(true);
    // An idle log looks for old events once a second, so it would have removed them by then.
    await sleep(1_500);
    expect(await isHeld(client, first)).toBe(true);
    expect(await isHeld(client, second)).toBe(true);
  });

  test('an hour back, a watch since a time before the jump has what was stored after that time', async (context) => {
    const { set, start } = machine(context);
    const client = (await start()).connect();
    const since = timestamp(realSeconds() - 1);
    await store(client, 'before');
    set(-HOUR);
    await store(client, 'after');
    expect(idsOf(await take(client, { topic: 'orders', since }, 2))).toEqual(['before', 'after']);
  });

  test('an hour ahead, ids are remembered after a restart', async (context) => {
    expect(await isDuplicateAfterJumpAndRestart(context, HOUR)).toBe(true);
  });

  // The service can't tell this from an hour in which it did not run.
  test('an hour ahead while the service is down counts as an hour for ids and retention; all else goes on', async (context) => {
    const { set, start } = machine(context, {
      FEED_RETENTION_MAX_AGE: '30m',
    });
    const before = await start();
    const cursor = await store(before.connect(), 'a');
    await before.kill('SIGTERM');
    set(HOUR);
    const ahead = await start();
    const client = ahead.connect();
    const next = await store(client, 'a');
    expect(positionOf(next)).toBeGreaterThan(positionOf(cursor));
    await untilGone(client, cursor);
    expect(await isHeld(client, next)).toBe(true);
    await ahead.kill('SIGTERM');
    // The clock is right again.
    set(0);
    const again = (await start()).connect();
    expect(await isDuplicate(again, 'a')).toBe(true);
    expect(await isHeld(again, next)).toBe(true);
    expect(positionOf(await store(again, 'b'))).toBeGreaterThan(positionOf(next));
  });
});
