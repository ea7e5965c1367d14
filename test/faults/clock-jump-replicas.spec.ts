import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, type TestContext, test } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { type FeedClient, take, upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { useShim } from '../support/shim.js';
import { until } from '../support/wait.js';

const HOUR = 3_600;
/** Milliseconds. A busy machine needs seconds for some calls. */
const WINDOW = 15_000;

const event = (id: string): Partial<Event> => ({ id, topic: 'orders' });

/** Uploads an event, and returns true if the log had it. */
async function isDuplicate(client: FeedClient, id: string): Promise<boolean> {
  const { result, error } = await upload(client, [event(id)]);
  if (!result) throw error!;
  return result.duplicates === 1;
}

describe.skipIf(!NATS_SERVER)("where the wall clock of a replica's machine jumps", () => {
  const shim = useShim(new URL('clock.c', import.meta.url));

  /** Starts a nats-server, and returns how to start replicas on one stream of it, each on a machine whose clock a test can set. */
  async function cluster(context: TestContext, settings: Record<string, string> = {}) {
    const library = shim(context);
    const [nats] = await NatsServer.start(1);
    onTestFinished(() => nats.remove());
    const all = { ...jetstreamSettings([nats]), LD_PRELOAD: library, ...settings };
    const machine = () => {
      const file = join(temporaryDirectory(), 'offset');
      writeFileSync(file, '0');
      return {
        set: (seconds: number) => writeFileSync(file, String(seconds)),
        start: () => ServiceProcess.start({ ...all, SHIM_CLOCK: file }),
      };
    };
    return { nats, machine };
  }

  test('an hour back, it connects again to NATS as soon as without it', async (context) => {
    const { nats, machine } = await cluster(context);
    const { set, start } = machine();
    const client = (await start()).connect();
    expect(await isDuplicate(client, 'a')).toBe(false);
    set(-HOUR);
    await nats.kill();
    nats.run();
    await nats.ready();
    const isStored = async () => (await upload(client, [event('b')])).result !== undefined;
    await until(isStored, 'an upload', 60_000, 200);
  });

  test('a day ahead for one start, it does not stop the time of the others', async (context) => {
    const { machine } = await cluster(context, { FEED_DEDUP_WINDOW: `${WINDOW}ms` });
    const client = (await machine().start()).connect();
    expect(await isDuplicate(client, 'a')).toBe(false);
    const other = machine();
    other.set(24 * HOUR);
    const ahead = await other.start();
    expect(await isDuplicate(ahead.connect(), 'b')).toBe(false);
    await ahead.kill('SIGTERM');
    expect(await isDuplicate(client, 'c')).toBe(false);
    expect(await isDuplicate(client, 'c')).toBe(true);
    const isForgotten = async () => !(await isDuplicate(client, 'c'));
    await until(isForgotten, 'the end of the window', 60_000, 200);
  });

  test.for(['the same replica', 'it after a restart', 'another replica'])(
    'set right after it was an hour behind, a watch since a time just before an event has that event, from %s',
    async (which, context) => {
      const { machine } = await cluster(context);
      const one = machine();
      one.set(-HOUR);
      const service = await one.start();
      const other = which === 'another replica' ? await machine().start() : undefined;
      one.set(0);
      expect(await isDuplicate(service.connect(), 'a')).toBe(false);
      const since = { seconds: Math.floor(Date.now() / 1000) - 60, nanos: 0 };
      let from = other ?? service;
      if (which === 'it after a restart') {
        await service.kill('SIGTERM');
        from = await one.start();
      }
      const client = from.connect();
      expect((await take(client, { topic: 'orders', last: 1 }, 1))[0].id).toBe('a');
      const taking = take(client, { topic: 'orders', since }, 1);
      // A watch that began live would get this one first.
      await isDuplicate(client, 'live');
      expect((await taking)[0].id).toBe('a');
    },
  );
});
