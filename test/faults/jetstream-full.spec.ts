import { once } from 'node:events';
import { status } from '@grpc/grpc-js';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Event, WatchRequest } from '../../src/gen/feed/v1/feed.js';
import { parseCursor } from '../../src/wire/cursor.js';
import { errorInfo, failure, type FeedClient, take, upload } from '../support/client.js';
import { smallDisk } from '../support/disk.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { runService, ServiceProcess } from '../support/service.js';
import { eventually, until, within } from '../support/wait.js';

const numbered = (from: number, count: number, bodyBytes = 0): Partial<Event>[] => {
  const body = 'x'.repeat(bodyBytes);
  return Array.from({ length: count }, (_, i) => ({ topic: 'orders', id: String(from + i), body }));
};
const ids = (events: readonly Event[]): string[] => events.map(({ id }) => id);
const upTo = (count: number): string[] => Array.from({ length: count }, (_, i) => String(i));

/** Uploads numbered events, some at a time, until an upload fails. Returns its reason, and how many events are stored. */
async function fill(
  client: FeedClient,
  atOnce: number,
  bodyBytes: number,
): Promise<{ stored: number; reason: string | undefined; code: status }> {
  for (let from = 0; ; from += atOnce) {
    const { error } = await upload(client, numbered(from, atOnce, bodyBytes));
    if (!error) continue;
    const info = errorInfo(error.metadata);
    return {
      stored: from + Number(info?.metadata.received),
      reason: info?.reason,
      code: error.code,
    };
  }
}

const readiness = async (httpAddress: string): Promise<number> =>
  (await fetch(`http://${httpAddress}/readyz`)).status;

describe.skipIf(!NATS_SERVER)('the quota of a stream', () => {
  async function startServer(): Promise<NatsServer> {
    const [server] = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => server.remove());
    return server;
  }

  test('refuses uploads on every replica, and nothing else; a start with a larger one heals them all', async () => {
    const settings = { ...jetstreamSettings([await startServer()]), FEED_QUOTA_BYTES: '1MiB' };
    const [one, other] = [await runService(settings), await runService(settings)];
    const { stored, reason, code } = await fill(one.client, 10, 10_000);
    expect([reason, code]).toEqual(['STORAGE_FULL', status.RESOURCE_EXHAUSTED]);
    expect(stored).toBeGreaterThan(50);
    for (const { client, httpAddress } of [one, other]) {
      const { error } = await upload(client, numbered(stored, 20, 10_000));
      expect(errorInfo(error!.metadata)?.reason).toBe('STORAGE_FULL');
      expect(error!.details).toContain('FEED_QUOTA_BYTES');
      expect(ids(await take(client, { topic: 'orders', position: 1 }, stored))).toEqual(
        upTo(stored),
      );
      expect((await upload(client, numbered(0, stored, 10_000))).result?.duplicates).toBe(stored);
      expect(await readiness(httpAddress)).toBe(200);
    }
    await runService({ ...settings, FEED_QUOTA_BYTES: '2MiB' });
    for (const { client } of [one, other])
      expect((await upload(client, numbered(stored, 20, 10_000))).result?.received).toBe(20);
    expect(ids(await take(other.client, { topic: 'orders', position: 1 }, stored + 20))).toEqual(
      upTo(stored + 20),
    );
  });

  /** Raises the quota, as an operator of NATS may, while no replica starts. */
  async function raise(server: NatsServer, stream: string, bytes: number): Promise<void> {
    const connection = await server.connect();
    const options = { timeout: 30_000 };
    const info = await connection.request(`$JS.API.STREAM.INFO.${stream}`, undefined, options);
    const { config } = info.json<{ config: object }>();
    const changed = JSON.stringify({ ...config, max_bytes: bytes });
    await connection.request(`$JS.API.STREAM.UPDATE.${stream}`, changed, options);
    await connection.close();
  }

  test('that is reached to its last byte lets replicas start and serve reads, and upload once it is raised', async () => {
    const server = await startServer();
    const settings: Record<string, string> = {
      ...jetstreamSettings([server]),
      FEED_QUOTA_BYTES: '64KiB',
    };
    // Each start makes the record of the epochs longer. In the end, it is longer than an event.
    for (let i = 0; i < 5; i++) await (await runService(settings)).app.close();
    const { client, app } = await runService(settings);
    const { stored, reason } = await fill(client, 1, 0);
    expect(reason).toBe('STORAGE_FULL');
    await app.close();

    const again = await runService(settings);
    const held = await take(again.client, { topic: 'orders', position: 1 }, stored);
    expect(ids(held)).toEqual(upTo(stored));
    const { error } = await upload(again.client, numbered(stored, 1));
    expect(errorInfo(error!.metadata)?.reason).toBe('STORAGE_FULL');
    await raise(server, settings.FEED_NATS_STREAM, 128 * 1024);
    const { result } = await upload(again.client, numbered(stored, 1));
    // A start begins an epoch before it stores anything, however late that is.
    const epochs = [held.at(-1)!.cursor, result!.lastCursor].map(
      (text) => parseCursor(text)!.epoch,
    );
    expect(epochs[1]).not.toBe(epochs[0]);
    const [last] = await take(
      again.client,
      { topic: 'orders', afterCursor: held.at(-1)!.cursor },
      1,
    );
    expect(last).toMatchObject({ id: String(stored), cursor: result!.lastCursor });
  });
});

describe.skipIf(!NATS_SERVER)('a full disk of NATS', () => {
  test.for([1, 3])(
    'ends uploads with STORE_UNAVAILABLE and takes nothing acknowledged; with room and a restart, all goes on (%i servers)',
    { timeout: 180_000 },
    async (size, context) => {
      const disks = Array.from({ length: size }, () => smallDisk(context, 64));
      const servers = await NatsServer.start(size, {
        jetstream: '',
        stores: disks.map(({ directory }) => directory),
      });
      onTestFinished(async () => void (await Promise.all(servers.map((one) => one.remove()))));
      const service = await ServiceProcess.start(jetstreamSettings(servers));
      const client = service.connect();
      const live: Event[] = [];
      const watch = client.Watch({ topic: 'orders', position: 1 });
      watch.on('data', (event: Event) => live.push(event));
      watch.on('error', () => {});
      onTestFinished(() => watch.cancel());
      await within(once(watch, 'metadata'), 'the headers of the watch');

      const { stored, reason, code } = await fill(client, 10, 100_000);
      expect([reason, code]).toEqual(['STORE_UNAVAILABLE', status.UNAVAILABLE]);
      expect(stored).toBeGreaterThan(100);
      expect(await readiness(service.httpAddress)).toBe(200);

      for (const disk of disks) disk.grow(256);
      await Promise.all(servers.map((server) => server.kill()));
      for (const server of servers) server.run();
      await Promise.all(servers.map((server) => server.ready()));
      // Some of them may have been stored before, but none is now stored twice.
      await eventually(async () => {
        const { result } = await upload(client, numbered(stored, 20, 100_000));
        expect(result?.received).toBe(20);
      }, 60_000);
      const held = await take(client, { topic: 'orders', position: 1 }, stored + 20);
      expect(ids(held)).toEqual(upTo(stored + 20));
      await until(() => live.length >= held.length, 'all events on the watch that was open');
      expect(ids(live)).toEqual(ids(held));
    },
  );
});

describe.skipIf(!NATS_SERVER)('a quiet topic that lost all its events to retention', () => {
  const HEARTBEAT = { seconds: 1, nanos: 0 };

  /** Opens a watch, and collects what comes, heartbeats too, until the test ends. Resolves once it has its headers. */
  async function watching(client: FeedClient, request: Partial<WatchRequest>): Promise<Event[]> {
    const call = client.Watch({ topic: 'quiet', heartbeat: HEARTBEAT, ...request });
    const got: Event[] = [];
    call.on('data', (event: Event) => got.push(event));
    call.on('error', () => {});
    onTestFinished(() => call.cancel());
    await new Promise((resolve) => call.on('metadata', resolve));
    return got;
  }

  test('keeps its cursor where a replica knows that nothing is missing, and is refused with a reason where none can', async () => {
    const [server] = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => server.remove());
    const settings = { ...jetstreamSettings([server]), FEED_RETENTION_MAX_BYTES: '1MiB' };
    const { client } = await runService(settings);
    const quiet = (id: string) => upload(client, [{ topic: 'quiet', id }]);
    const { lastCursor: afterCursor } = (await quiet('before')).result!;
    const open = await watching(client, { afterCursor });
    let head = '';
    for (let i = 0; i < 5; i++)
      head = (await upload(client, numbered(100 * i, 100, 10_000))).result!.lastCursor;

    const resumed = await watching(client, { afterCursor });
    const { client: fresh } = await runService(settings);
    const refused = await failure(fresh.Watch({ topic: 'quiet', afterCursor }));
    const info = errorInfo(refused.metadata)!;
    expect([info.reason, refused.code]).toEqual(['CURSOR_EXPIRED', status.OUT_OF_RANGE]);
    await until(() => open.some(({ cursor }) => cursor >= head), 'a heartbeat after all');
    const { cursor: heartbeat } = open.at(-1)!;
    await quiet('after');
    for (const good of [info.metadata.earliest, heartbeat])
      expect(ids(await take(fresh, { topic: 'quiet', afterCursor: good }, 1))).toEqual(['after']);
    for (const got of [open, resumed]) {
      const events = () => ids(got).filter((id) => id !== '');
      await until(() => events().length > 0, 'the event');
      expect(events()).toEqual(['after']);
    }
  });
});
