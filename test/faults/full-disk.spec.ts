import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Client, credentials, type ServiceError, status } from '@grpc/grpc-js';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { errorInfo, type FeedClient, upload } from '../support/client.js';
import { smallDisk } from '../support/disk.js';
import { ENGINES, engineForTests } from '../support/nats.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until, within } from '../support/wait.js';

const MIB = 2 ** 20;
const BODY = 'x'.repeat(64 * 1024);
const TOPICS = ['orders', 'invoices'] as const;

type Topic = (typeof TOPICS)[number];
type Stored = Record<Topic, string[]>;

const events = (topic: string, from: number, count: number): Partial<Event>[] =>
  Array.from({ length: count }, (_, i) => ({ topic, id: String(from + i), body: BODY }));

/** Uploads 4 MiB at a time until an upload is refused. Returns the ids of all acknowledged events. */
async function fill(client: FeedClient, topic: string): Promise<string[]> {
  for (let from = 0; ; from += 64) {
    const { result, error } = await upload(client, events(topic, from, 64));
    if (result) continue;
    expect(error).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    const info = errorInfo(error!.metadata)!;
    expect(info.reason).toBe('STORAGE_FULL');
    return Array.from({ length: from + Number(info.metadata.received) }, (_, i) => String(i));
  }
}

/** Fills both topics at the same time, by two producers. */
async function fillAll(client: FeedClient): Promise<Stored> {
  const [orders, invoices] = await Promise.all(TOPICS.map((topic) => fill(client, topic)));
  return { orders, invoices };
}

/** Reads each topic until a heartbeat shows that there is no more. */
async function readAll(client: FeedClient): Promise<Stored> {
  const read = async (topic: string): Promise<string[]> => {
    const ids: string[] = [];
    const watch = client.Watch({ topic, position: 1, heartbeat: { seconds: 1, nanos: 0 } });
    for await (const { id } of watch as AsyncIterable<Event>) {
      if (id === '') break;
      ids.push(id);
    }
    return ids;
  };
  const [orders, invoices] = await Promise.all(TOPICS.map(read));
  return { orders, invoices };
}

/** Watches both topics from now on, and collects what it gets. */
async function follow(client: FeedClient): Promise<Stored> {
  const seen: Stored = { orders: [], invoices: [] };
  for (const topic of TOPICS) {
    const watch = client.Watch({ topic });
    watch.on('data', ({ id }: Event) => seen[topic].push(id));
    watch.on('error', ({ details }: ServiceError) => seen[topic].push(details));
    await within(once(watch, 'metadata'), 'the headers of the watch');
  }
  return seen;
}

/** Returns the HTTP status of /readyz, and the answer of gRPC's health check. */
async function probes({ grpcAddress, httpAddress }: ServiceProcess): Promise<[number, Buffer]> {
  const client = new Client(grpcAddress, credentials.createInsecure());
  onTestFinished(() => client.close());
  const bytes = (message: Buffer) => message;
  const health = new Promise<Buffer>((resolve, reject) => {
    const path = '/grpc.health.v1.Health/Check';
    client.makeUnaryRequest(path, bytes, bytes, Buffer.alloc(0), (error, reply) =>
      error ? reject(error) : resolve(reply!),
    );
  });
  return [(await fetch(`http://${httpAddress}/readyz`)).status, await health];
}

/** Uploads 4 MiB more, and checks that they are acknowledged. */
async function uploadMore(client: FeedClient, stored: Stored, topic: Topic): Promise<void> {
  const next = events(topic, stored[topic].length, 64);
  const { result, error } = await upload(client, next);
  if (!result) throw error!;
  expect(result).toMatchObject({ received: 64, duplicates: 0 });
  stored[topic].push(...next.map(({ id }) => id!));
}

/** Uploads the same events again and again until they are acknowledged. */
async function retryUpload(client: FeedClient, stored: Stored): Promise<void> {
  const next = events('orders', stored.orders.length, 64);
  const reasons = new Set<string | undefined>();
  const isTaken = async (): Promise<boolean> => {
    const { result, error } = await upload(client, next);
    if (!result) reasons.add(errorInfo(error!.metadata)?.reason);
    return result !== undefined;
  };
  await until(
    isTaken,
    () => `an upload that is taken, and not refused with ${[...reasons].join()}`,
    undefined,
    50,
  );
  expect([[], ['STORAGE_FULL']]).toContainEqual([...reasons]);
  stored.orders.push(...next.map(({ id }) => id!));
}

/** Checks that the service takes uploads again, of more than the whole disk, and keeps the newest 16 MiB. */
async function checkItGoesOn(client: FeedClient, stored: Stored): Promise<void> {
  await retryUpload(client, stored);
  for (let mib = 0; mib < 128; mib += 8)
    for (const topic of TOPICS) await uploadMore(client, stored, topic);
  const held = await readAll(client);
  for (const topic of TOPICS) expect(held[topic]).toEqual(stored[topic].slice(-held[topic].length));
  const bytes = (held.orders.length + held.invoices.length) * BODY.length;
  expect(bytes).toBeGreaterThan(12 * MIB);
  expect(bytes).toBeLessThan(24 * MIB);
}

const READY = [200, Buffer.from([8, 1])]; // 1 is SERVING

const counts = (stored: Stored) => String(TOPICS.map((topic) => stored[topic].length));

describe('a full disk', { timeout: 300_000 }, () => {
  test('refuses only uploads, with the number of stored events, until it has room', async (context) => {
    const disk = smallDisk(context, 96);
    const settings = { FEED_DATA_DIR: join(disk.directory, 'data') };
    const service = await ServiceProcess.start(settings);
    const client = service.connect();
    const seen = await follow(service.connect());
    const stored = await fillAll(client);
    expect(stored.orders.length + stored.invoices.length).toBeGreaterThan((48 * MIB) / BODY.length);

    expect(await readAll(client)).toEqual(stored);
    await until(() => counts(seen) === counts(stored), 'watches that have all');
    expect(await probes(service)).toEqual(READY);
    // Events that are stored already need no room.
    expect((await upload(client, events('orders', 0, 64))).result?.duplicates).toBe(64);

    disk.grow(256);
    for (const topic of TOPICS) await uploadMore(client, stored, topic);
    await until(() => counts(seen) === counts(stored), 'watches that have all');
    expect(seen).toEqual(stored);
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(await readAll((await ServiceProcess.start(settings)).connect())).toEqual(stored);
  });

  test('takes uploads again once retention is set to keep less', async (context) => {
    const disk = smallDisk(context, 96);
    const settings = { FEED_DATA_DIR: join(disk.directory, 'data') };
    const full = await ServiceProcess.start(settings);
    const stored = await fillAll(full.connect());
    expect(await full.kill('SIGTERM')).toEqual({ code: 0, signal: null });

    const service = await ServiceProcess.start({ ...settings, FEED_RETENTION_MAX_BYTES: '16MiB' });
    const client = service.connect();
    await checkItGoesOn(client, stored);
  });

  test('that is full to its last byte does no harm while retention has to remove; it goes on once there is room', async (context) => {
    const disk = smallDisk(context, 96);
    const settings = { FEED_DATA_DIR: join(disk.directory, 'data') };
    const full = await ServiceProcess.start(settings);
    const stored = await fillAll(full.connect());
    await full.kill('SIGTERM');
    disk.fill();
    const service = await ServiceProcess.start({ ...settings, FEED_RETENTION_MAX_BYTES: '16MiB' });
    const client = service.connect();
    for (let i = 0; i < 3; i++) {
      const { error } = await upload(client, events('orders', stored.orders.length, 64));
      expect(errorInfo(error!.metadata)).toMatchObject({
        reason: 'STORAGE_FULL',
        metadata: { received: '0' },
      });
      // Reading takes long enough that retention has tried to remove events as well.
      expect(await readAll(client)).toEqual(stored);
    }
    disk.free();
    await checkItGoesOn(client, stored);
  });
});

describe('a start on a full disk', { timeout: 120_000 }, () => {
  /** Starts the service, which must end with the reason and with what to do. */
  async function startIsRefused(directory: string, path: string): Promise<void> {
    const service = ServiceProcess.spawn({ FEED_DATA_DIR: directory });
    expect(await service.exited).toEqual({ code: 1, signal: null });
    const output = service.output.join('');
    expect(output).toContain("Feed can't start: ");
    expect(output).toContain(`can't use ${path}: its disk has no room, with `);
    expect(output).toContain('bytes');
    expect(output).toContain('make room');
  }

  /** Starts the service and uploads an event, and ends it. Returns how many events are held then. */
  async function storeOne(directory: string): Promise<number> {
    const service = await ServiceProcess.start({ FEED_DATA_DIR: directory });
    const client = service.connect();
    const { error } = await upload(client, [{ topic: 'orders' }]);
    expect(error).toBeUndefined();
    const { orders } = await readAll(client);
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    return orders.length;
  }

  // By how much was free, LMDB ended the process by SIGBUS or SIGSEGV, or said the number of a page.
  test('makes no new log, says why, and makes one once there is room', async (context) => {
    const disk = smallDisk(context, 32);
    const directory = join(disk.directory, 'data');
    for (const kib of [0, 4, 8, 12, 20, 40]) {
      disk.fill(kib);
      await startIsRefused(directory, directory);
      disk.free();
    }
    expect(await storeOne(directory)).toBe(1);
  });

  test("opens no log whose lock.mdb can't be made, nor one without free pages, and takes no harm", async (context) => {
    const disk = smallDisk(context, 32);
    const directory = join(disk.directory, 'data');
    expect(await storeOne(directory)).toBe(1);
    const readers = join(directory, 'log', 'lock.mdb');
    // As in a copy of data.mdb alone.
    rmSync(readers);
    disk.fill();
    await startIsRefused(directory, readers);
    disk.free();
    // Room for lock.mdb and the note, but not for the pages of a commit.
    disk.fill(16);
    await startIsRefused(directory, directory);
    disk.free();
    expect(await storeOne(directory)).toBe(2);
  });
});

describe('a quota', () => {
  const { settings: settingsOf } = engineForTests();
  test.each(ENGINES)('refuses uploads as a full disk does (%s)', async (engine) => {
    const settings = {
      ...settingsOf(engine),
      FEED_DATA_DIR: temporaryDirectory(),
      FEED_QUOTA_BYTES: '16MiB',
    };
    let service = await ServiceProcess.start(settings);
    let client = service.connect();
    const stored = await fillAll(client);
    const bytes = (stored.orders.length + stored.invoices.length) * BODY.length;
    expect(bytes).toBeGreaterThan(7 * MIB);
    expect(bytes).toBeLessThan(16 * MIB);
    expect(await readAll(client)).toEqual(stored);
    expect(await probes(service)).toEqual(READY);
    expect((await upload(client, events('orders', 0, 64))).result?.duplicates).toBe(64);
    if (engine === 'memory') return;

    // After a restart, the events of before count.
    const restart = async (age: Record<string, string>): Promise<void> => {
      await service.kill('SIGTERM');
      service = await ServiceProcess.start({ ...settings, ...age });
      client = service.connect();
    };
    await restart({});
    const { error } = await upload(client, events('orders', stored.orders.length, 64));
    expect(errorInfo(error!.metadata)?.reason).toBe('STORAGE_FULL');
    expect(error!.details).toContain('FEED_QUOTA_BYTES');
    // Uploads are taken again once the stored events are too old and removed.
    await restart({ FEED_RETENTION_MAX_AGE: '2s' });
    await retryUpload(client, stored);
  });
});
