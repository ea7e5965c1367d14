import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  createReadStream,
  createWriteStream,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type ServiceError, status } from '@grpc/grpc-js';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { connectAdmin } from '../support/admin.js';
import { errorInfo, failure, type FeedClient, take, upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { runService, ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually, until, within } from '../support/wait.js';

const SERVER = fileURLToPath(new URL('../../bin/feed-server', import.meta.url));

interface Ending {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `feed-server restore`. @param input what its standard input has */
function restore(path: string, env: Record<string, string>, input?: string): Promise<Ending> {
  const child = spawn(SERVER, ['restore', path], { env: { PATH: process.env.PATH!, ...env } });
  onTestFinished(() => void child.kill('SIGKILL'));
  if (input !== undefined) createReadStream(input).pipe(child.stdin);
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ended = new Promise<Ending>((resolve) =>
    child.on('close', (code) => resolve({ code, stdout, stderr })),
  );
  return within(ended, 'the end of the restore', 60_000);
}

const numbered = (from: number, count: number, bytes = 0): Partial<Event>[] =>
  Array.from({ length: count }, (_, i) => ({
    topic: 'orders',
    id: String(from + i),
    body: 'x'.repeat(bytes),
  }));
const ids = (events: readonly Event[]): number[] => events.map(({ id }) => Number(id));

async function reasonOf(client: FeedClient, afterCursor: string): Promise<string> {
  const error = await failure(client.Watch({ topic: 'orders', afterCursor }));
  return errorInfo(error.metadata)!.reason;
}

/** Checks a log that is an older copy of another one: what it has, which cursors it takes, and that it goes on. */
async function checkOlderCopy(
  client: FeedClient,
  kept: readonly Event[],
  later: readonly Event[],
): Promise<void> {
  const found = await take(client, { topic: 'orders', position: 1 }, kept.length);
  expect(found).toEqual(kept);
  for (const { cursor } of later) expect(await reasonOf(client, cursor)).toBe('EPOCH_CHANGED');
  const { result } = await upload(client, numbered(5_000, 3));
  expect(result!.received).toBe(3);
  for (const [i, { cursor }] of kept.entries()) {
    const rest = await take(client, { topic: 'orders', afterCursor: cursor }, 1);
    expect(ids(rest)[0]).toBe(i + 1 < kept.length ? Number(kept[i + 1].id) : 5_000);
  }
  // The new events have the positions of the ones that this log never had, and still nobody takes them for those.
  for (const { cursor } of later) expect(await reasonOf(client, cursor)).toBe('EPOCH_CHANGED');
}

describe('a backup', () => {
  test('is made under load, and restored: what it has is all of one moment', async () => {
    const service = await ServiceProcess.start({
      FEED_DATA_DIR: temporaryDirectory(),
      FEED_RETENTION_MAX_BYTES: '8MiB',
      FEED_DURABILITY: 'none', // Flushes of more than 120 uploads may take minutes.
    });
    const client = service.connect();
    let next = 0;
    const load = new AbortController();
    const loading = (async () => {
      while (!load.signal.aborted) {
        const { error } = await upload(client, numbered(next, 100, 1_000));
        if (error) throw error;
        next += 100;
      }
    })();
    await until(() => next > 12_000, 'retention at work', 120_000);
    const file = join(temporaryDirectory(), 'feed.backup');
    const admin = connectAdmin(service.grpcAddress);
    const begunAt = next;
    const { totalBytes } = await admin.backup(file, 50);
    const endedAt = next;
    expect(endedAt).toBeGreaterThan(begunAt);
    expect(statSync(file).size).toBe(totalBytes);
    load.abort();
    await loading;

    const directory = join(temporaryDirectory(), 'new');
    const { code, stdout, stderr } = await restore(file, { FEED_DATA_DIR: directory });
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^restored \d+ bytes into .*new: the log of 20\S+Z, whose newest event has the cursor \w{16}\. Clients/m,
    );
    const copy = await ServiceProcess.start({ FEED_DATA_DIR: directory });
    const ofCopy = copy.connect();
    const { topic } = await connectAdmin(copy.grpcAddress).getTopic('orders');
    expect(topic!.newest!.cursor).toBe(/cursor (\w{16})/.exec(stdout)![1]);
    const found = ids(await take(ofCopy, { topic: 'orders', position: 1 }, topic!.events));
    expect(found).toEqual(found.map((_, i) => found[0] + i));
    expect(found.at(-1)!).toBeGreaterThanOrEqual(begunAt - 1);
    expect(found.at(-1)!).toBeLessThan(endedAt);
  });

  test('keeps old cursors up to its head, and refuses later ones; from standard input, too', async () => {
    const service = await runService({ FEED_DURABILITY: 'none' });
    await upload(service.client, numbered(0, 20));
    const file = join(temporaryDirectory(), 'feed.backup');
    await connectAdmin(service.grpcAddress).backup(file);
    await upload(service.client, numbered(20, 20));
    const events = await take(service.client, { topic: 'orders', position: 1 }, 40);
    const line = service.log.find(({ msg }) => msg === 'the backup is done');
    expect(line).toMatchObject({ context: 'admin', peer: expect.stringMatching(/^127\.0\.0\.1:/) });
    const ended = () => service.log.find(({ method }) => String(method).endsWith('/Backup'));
    await until(() => ended() !== undefined, 'the line of the call');
    expect(ended()).toMatchObject({ status: 'OK', bytes: statSync(file).size });

    const directory = temporaryDirectory();
    expect((await restore('-', { FEED_DATA_DIR: directory }, file)).code).toBe(0);
    const copy = await runService({ FEED_DATA_DIR: directory, FEED_DURABILITY: 'none' });
    await checkOlderCopy(copy.client, events.slice(0, 20), events.slice(20));
  });

  test('that can not be restored says why, and leaves the directory as it was', async () => {
    const service = await runService({ FEED_DURABILITY: 'none' });
    await upload(service.client, numbered(0, 20));
    const file = join(temporaryDirectory(), 'feed.backup');
    await connectAdmin(service.grpcAddress).backup(file);
    const used = temporaryDirectory();
    writeFileSync(join(used, 'other'), '');
    const missing = join(used, 'missing');
    const cases: [path: string, env: Record<string, string>, code: number, text: string][] = [
      [file, { FEED_DATA_DIR: used }, 1, 'is not empty'],
      [
        missing,
        { FEED_DATA_DIR: temporaryDirectory() },
        1,
        `the backup ${missing} can't be read: there is no such file`,
      ],
      [SERVER, { FEED_DATA_DIR: temporaryDirectory() }, 1, 'it is no backup of Feed'],
      [file, { FEED_ENGINE: 'memory' }, 78, 'set FEED_ENGINE=lmdb'],
      [
        file,
        { FEED_ENGINE: 'jetstream', FEED_NATS_SERVERS: 'nats://x' },
        78,
        'nats stream restore',
      ],
      [file, { FEED_DATA_DRI: used }, 78, 'FEED_DATA_DRI'],
    ];
    for (const [path, env, code, text] of cases) {
      const ending = await restore(path, env);
      expect(ending.stderr).toContain(text);
      expect(ending.stderr).toMatch(/^Feed can't restore: /);
      expect(ending.code).toBe(code);
    }
    expect(readdirSync(used)).toEqual(['other']);
  });

  test('that is interrupted is not taken for a restored one, and can be restored again', async () => {
    const service = await runService({ FEED_DURABILITY: 'none' });
    await upload(service.client, numbered(0, 200, 5_000));
    const file = join(temporaryDirectory(), 'feed.backup');
    await connectAdmin(service.grpcAddress).backup(file);
    const directory = temporaryDirectory();
    const child = spawn(SERVER, ['restore', '-'], {
      env: { PATH: process.env.PATH!, FEED_DATA_DIR: directory },
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const exited = once(child, 'exit');
    child.stdin.on('error', () => {});
    child.stdin.write(readFileSync(file).subarray(0, 300_000));
    await until(() => existsSync(join(directory, 'restoring', 'log', 'data.mdb')), 'its beginning');
    child.kill('SIGTERM');
    expect((await within(exited, 'its end'))[0]).toBe(1);
    expect(existsSync(join(directory, 'log'))).toBe(false);
    // Instead of with an empty log, which nobody could restore into any more.
    const started = ServiceProcess.spawn({ FEED_DATA_DIR: directory });
    expect((await started.ended()).code).toBe(1);
    expect(started.output.join('')).toContain('restore it again');
    expect((await restore(file, { FEED_DATA_DIR: directory })).code).toBe(0);
    expect(readdirSync(directory).toSorted()).toEqual(['lock', 'log']);
  });

  test('is restored from a named pipe, and a signal ends a restore that waits for its writer', async () => {
    const service = await runService({ FEED_DURABILITY: 'none' });
    await upload(service.client, numbered(0, 20));
    const file = join(temporaryDirectory(), 'feed.backup');
    await connectAdmin(service.grpcAddress).backup(file);
    const pipe = join(temporaryDirectory(), 'pipe');
    execFileSync('mkfifo', [pipe]);
    const directory = temporaryDirectory();
    const env = { PATH: process.env.PATH!, FEED_DATA_DIR: directory };
    const child = spawn(SERVER, ['restore', pipe], { env });
    onTestFinished(() => void child.kill('SIGKILL'));
    const exited = once(child, 'exit');
    await until(() => existsSync(join(directory, 'restoring', 'log')), 'its beginning');
    child.kill('SIGTERM');
    expect(await within(exited, 'its end')).toEqual([1, null]);

    const restored = restore(pipe, { FEED_DATA_DIR: directory });
    createReadStream(file).pipe(createWriteStream(pipe));
    expect(await restored).toMatchObject({ code: 0, stderr: '' });
  });

  test('is restored also where nobody reads how far that is', async () => {
    const service = await runService({ FEED_DURABILITY: 'none' });
    await upload(service.client, numbered(0, 20, 5_000));
    const file = join(temporaryDirectory(), 'feed.backup');
    await connectAdmin(service.grpcAddress).backup(file);
    const env = { PATH: process.env.PATH!, FEED_DATA_DIR: temporaryDirectory() };
    const child = spawn(SERVER, ['restore', '-'], { env });
    onTestFinished(() => void child.kill('SIGKILL'));
    const exited = once(child, 'exit');
    child.stdin.on('error', () => {});
    child.stdout.destroy();
    const bytes = readFileSync(file);
    child.stdin.write(bytes.subarray(0, 50_000));
    const copy = join(env.FEED_DATA_DIR, 'restoring', 'log', 'data.mdb');
    await until(() => existsSync(copy), 'its beginning');
    await sleep(5_100); // it says how far it is with the first bytes after 5 s
    child.stdin.write(bytes.subarray(50_000, 60_000));
    await sleep(100);
    child.stdin.end(bytes.subarray(60_000));
    expect(await within(exited, 'its end')).toEqual([0, null]);
  });

  test('is refused while four others are under way, and reads and uploads go on', async () => {
    const { client, grpcAddress } = await runService({ FEED_DURABILITY: 'none' });
    await upload(client, numbered(0, 300, 10_000));
    const admin = connectAdmin(grpcAddress);
    const open = [];
    for (let i = 0; i < 4; i++) {
      const parts = admin.backupParts();
      await parts.next();
      open.push(parts);
      // So that each holds pages of its own moment.
      expect((await upload(client, numbered(300 + i, 1))).result!.received).toBe(1);
    }
    const refused = await admin.backup(join(temporaryDirectory(), 'b')).then(
      () => expect.fail('a fifth backup'),
      (cause: ServiceError) => cause,
    );
    expect(refused.code).toBe(status.RESOURCE_EXHAUSTED);
    expect(errorInfo(refused.metadata)).toMatchObject({
      reason: 'LIMIT_EXCEEDED',
      metadata: { limit: 'backups', most: '4' },
    });
    expect(await take(client, { topic: 'orders', position: 1 }, 304)).toHaveLength(304);
    await open[0].return();
    await eventually(() => admin.backup(join(temporaryDirectory(), 'b')));
    for (const parts of open) await parts.return();
  });

  test('is refused by other engines, with what to do instead', async () => {
    const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    const refused = connectAdmin(grpcAddress).backup(join(temporaryDirectory(), 'b'));
    const { code, metadata } = await refused.then(
      () => expect.fail('a backup of a log in memory'),
      (cause: ServiceError) => cause,
    );
    expect(code).toBe(status.FAILED_PRECONDITION);
    expect(errorInfo(metadata)!.reason).toBe('BACKUP_UNSUPPORTED');
  });

  test.skipIf(!NATS_SERVER)('of a stream is made by NATS, which the refusal says', async () => {
    const servers = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => servers[0].remove());
    const { grpcAddress } = await runService(jetstreamSettings(servers));
    const backup = connectAdmin(grpcAddress).backup(join(temporaryDirectory(), 'b'));
    await expect(backup).rejects.toThrow('nats stream backup');
  });
});

test('a copy of the volume of a running service, put back after the service had gone on, refuses what it never had', async () => {
  const directory = temporaryDirectory();
  const snapshot = join(temporaryDirectory(), 'snapshot');
  const settings = { FEED_DATA_DIR: directory };
  const service = await ServiceProcess.start(settings);
  const client = service.connect();
  await upload(client, numbered(0, 20));
  // Nothing is stored meanwhile, so that the copy is of one moment, as a VolumeSnapshot is.
  cpSync(directory, snapshot, { recursive: true });
  await upload(client, numbered(20, 20));
  const events = await take(client, { topic: 'orders', position: 1 }, 40);
  await service.kill('SIGTERM');
  rmSync(directory, { recursive: true });
  cpSync(snapshot, directory, { recursive: true });

  const again = await ServiceProcess.start(settings);
  await checkOlderCopy(again.connect(), events.slice(0, 20), events.slice(20));
});
