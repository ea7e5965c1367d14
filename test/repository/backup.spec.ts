import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { decodeBackup, encodeBackup } from '../../src/repository/backup-file.js';
import { type Backup, BackupUnsupportedError } from '../../src/repository/event-repository.js';
import { EventLog } from '../../src/repository/event-log.js';
import { openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import { restoreBackup } from '../../src/repository/lmdb/restore.js';
import { MemoryEngine } from '../../src/repository/memory/memory-engine.js';
import { KEEP_ALL } from '../../src/repository/retention.js';
import { formatCursor } from '../../src/wire/cursor.js';
import { ids, readAll } from '../contract/reading.js';
import { smallDisk } from '../support/disk.js';
import { temporaryDirectory } from '../support/service.js';
import { checked } from '../wire/events.js';

const disk = vi.hoisted(() => ({ full: false }));
vi.mock('node:fs', async (importOriginal) => {
  const fs = await importOriginal<typeof import('node:fs')>();
  const statfsSync = (path: string) => {
    const found = fs.statfsSync(path);
    return disk.full ? Object.assign(found, { bavail: 0 }) : found;
  };
  return { ...fs, statfsSync };
});

const SILENT = { info: () => {}, error: () => {} };
const TOPICS = ['orders', 'audit', 'x'.repeat(150)];

async function open(directory: string, maxBytes = 0): Promise<EventLog> {
  const retention = { ...KEEP_ALL, maxBytes };
  const log = await openLmdbLog({ directory, fsync: false, retention });
  onTestFinished(() => log.close());
  return log;
}

async function* of(...chunks: Buffer[]): AsyncGenerator<Buffer> {
  yield* chunks;
}

async function* cut(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function all(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const found: Buffer[] = [];
  for await (const chunk of chunks) found.push(chunk);
  return Buffer.concat(found);
}

/** Returns all that a log holds. */
async function contents(log: EventLog): Promise<unknown> {
  const found = [];
  for (const topic of TOPICS) {
    const floor = await log.floor(topic);
    found.push([topic, floor, await readAll(log, topic, floor), await log.heldOf(topic)]);
  }
  return found;
}

let written = 0;
/** Makes commits of 20 events of all sizes, of 45 KB together. */
async function write(log: EventLog, commits: number): Promise<void> {
  const writer = log.openWriter();
  for (let i = 0; i < commits; i++) {
    const events = Array.from({ length: 10 }, () => {
      const n = written++;
      return [
        { topic: TOPICS[n % 3], id: String(n), body: 'a'.repeat((n * 7919) % 9_000) },
        { topic: TOPICS[(n + 1) % 3], id: `${n}b`, body: 'b'.repeat(n % 50) },
      ];
    });
    await writer.append(checked(...events.flat()));
  }
}

test('is the log of one moment, however much is stored and removed while it is read', async () => {
  const log = await open(temporaryDirectory(), 3_000_000);
  // Retention has removed events, so that LMDB has free pages to write to.
  await write(log, 150);
  const before = await contents(log);
  const head = log.cursorAt(log.head);
  const backup = await log.backup();
  const chunks: Buffer[] = [];
  for await (const chunk of backup.chunks()) {
    chunks.push(chunk);
    await write(log, 15);
  }
  expect(backup.grownBytes).toBeGreaterThan(2_000_000);
  backup.release();
  expect(Buffer.concat(chunks).length).toBe(backup.bytes);
  expect(chunks.length).toBeGreaterThan(10);

  const directory = temporaryDirectory();
  const restored = await restoreBackup(of(...chunks), 'b', directory, SILENT);
  expect(restored.head).toBe(formatCursor(head));
  expect(restored.header.head).toBe(formatCursor(head));
  expect(readdirSync(directory).toSorted()).toEqual(['lock', 'log']);
  // The restore has checked it, so the next start need not.
  const note = JSON.parse(readFileSync(join(directory, 'log', 'opened'), 'utf8')) as object;
  expect(note).toHaveProperty('closed');
  const copy = await open(directory);
  expect(await contents(copy)).toEqual(before);

  // Pages that the backup kept are used again once it is over.
  const { bytes } = await log.backup();
  await write(log, 150);
  const later = await log.backup();
  expect(later.bytes - bytes).toBeLessThan(1_000_000);
});

test('has each commit whole, also where it begins while commits are under way', async () => {
  const log = await open(temporaryDirectory());
  const writing = write(log, 100);
  const backups: Backup[] = [];
  for (let i = 0; i < 20; i++) {
    for (let turn = 0; turn < i; turn++) await nextTurn();
    backups.push(await log.backup());
  }
  await writing;
  const events = await readAll(log, TOPICS[0]);
  for (const backup of backups) {
    const directory = temporaryDirectory();
    const restored = await restoreBackup(backup.chunks(), 'b', directory, SILENT);
    backup.release();
    const copy = await open(directory);
    const found = await readAll(copy, TOPICS[0]);
    expect(found).toEqual(events.slice(0, found.length));
    expect(restored.header.head).toBe(formatCursor(copy.cursorAt(copy.head)));
    expect(copy.head % 20).toBe(0); // each commit has 20 events
  }
});

test('a restored log goes on after old cursors up to its head, and refuses later ones', async () => {
  const log = await open(temporaryDirectory());
  const append = async (to: EventLog, id: string) =>
    (await to.openWriter().append(checked({ topic: 'orders', id }))).last;
  const kept = await append(log, 'kept');
  const backup = await log.backup();
  const later = await append(log, 'later');
  const directory = temporaryDirectory();
  await restoreBackup(backup.chunks(), 'b', directory, SILENT);
  const copy = await open(directory);
  expect([copy.locate(kept), copy.locate(later)]).toEqual(['in-log', 'other-epoch']);
  const fresh = await append(copy, 'fresh');
  expect(fresh.position).toBe(later.position);
  expect([copy.locate(later), copy.locate(fresh)]).toEqual(['other-epoch', 'in-log']);
  expect([log.locate(fresh), log.locate(kept)]).toEqual(['other-epoch', 'in-log']);
  expect(ids(await readAll(copy, 'orders', kept.position))).toEqual(['fresh']);
});

test('is refused where it was changed, cut short, lengthened, or is something else', async () => {
  const log = await open(temporaryDirectory());
  await write(log, 30);
  const whole = await all((await log.backup()).chunks());
  const flipped = (at: number): Buffer => {
    const bytes = Buffer.from(whole);
    bytes[at] ^= 1;
    return bytes;
  };
  const text = (line: string): Buffer => Buffer.from(line);
  const cases: [Buffer, string][] = [
    [flipped(whole.length >> 1), 'its SHA-256 is another one'],
    [flipped(whole.length - 1), 'its SHA-256 is another one'],
    [whole.subarray(0, -1), 'cut short'],
    [whole.subarray(0, whole.length >> 1), 'cut short'],
    [Buffer.concat([whole, text('x')]), 'more follows its end'],
    [text(''), 'no backup of Feed'],
    [text('feed'), 'no backup of Feed'],
    [whole.subarray(100), 'no backup of Feed'],
    [text('feed backup 2\n{}\n'), 'format 2; this version reads 1'],
    [text('feed backup 1\n{"bytes":-1}\n'), 'second line is damaged'],
    [text('feed backup 1\n{'), 'no backup of Feed'],
  ];
  for (const [bytes, problem] of cases) {
    const directory = temporaryDirectory();
    const restoring = restoreBackup(of(bytes), 'b.feed', directory, SILENT);
    await expect(restoring).rejects.toThrow(/^the backup b\.feed can't be restored: /);
    await expect(restoring).rejects.toThrow(problem);
    expect(readdirSync(directory)).toEqual([]);
  }
  // Whole by its digest, and yet no log: the checks of a copy find that.
  const { header, file } = await decodeBackup(of(whole));
  const log1 = await all(file);
  log1.fill(0, log1.length >> 1);
  const bad = encodeBackup(header, of(log1));
  await expect(restoreBackup(bad, 'b', temporaryDirectory(), SILENT)).rejects.toThrow('damaged');
});

test('that can not be restored leaves no directory and no file that it made', async () => {
  const restore = (directory: string) =>
    restoreBackup(of(Buffer.from('x')), 'b', directory, SILENT);
  const above = temporaryDirectory();
  await expect(restore(join(above, 'new', 'data'))).rejects.toThrow('no backup of Feed');
  expect(readdirSync(above)).toEqual([]);

  // A restore that fails keeps a lock file that it found, and the sign that an earlier restore was broken off.
  const used = temporaryDirectory();
  writeFileSync(join(used, 'lock'), '');
  await expect(restore(used)).rejects.toThrow('no backup of Feed');
  expect(readdirSync(used)).toEqual(['lock']);
  mkdirSync(join(used, 'restoring', 'log'), { recursive: true });
  await expect(restore(used)).rejects.toThrow('no backup of Feed');
  expect(readdirSync(used)).toEqual(['lock', 'restoring']);
  await expect(open(used)).rejects.toThrow('was broken off');
  writeFileSync(join(used, 'notes'), '');
  await expect(restore(used)).rejects.toThrow('it has notes');
  expect(readdirSync(used)).toEqual(['lock', 'notes', 'restoring']);
});

test('is refused as soon as more follows its end, however much that is', async () => {
  const log = await open(temporaryDirectory());
  await write(log, 30);
  const whole = await all((await log.backup()).chunks());
  let read = 0;
  async function* endless(): AsyncGenerator<Buffer> {
    yield whole;
    for (; read < 100; read++) yield Buffer.alloc(1024);
  }
  const { file } = await decodeBackup(endless());
  await expect(all(file)).rejects.toThrow('more follows its end');
  expect(read).toBe(0);
});

test('can be read in chunks of any size', async () => {
  const log = await open(temporaryDirectory());
  await write(log, 3);
  const whole = await all((await log.backup()).chunks());
  for (const size of [1, 13, 14, 15, 100, 4_096]) {
    const { header, file } = await decodeBackup(cut(whole, size));
    expect((await all(file)).length).toBe(header.bytes);
  }
});

test('that the disk has no room for is not restored: it says where, and what to do', async (context) => {
  const log = await open(temporaryDirectory());
  const backup = await log.backup();
  const whole = await all(backup.chunks());
  backup.release();
  const volume = smallDisk(context, 2);
  const directory = join(volume.directory, 'data');
  const restore = () => restoreBackup(of(whole), 'b', directory, SILENT);
  for (const [kib, path] of [
    [8, 'data/restoring/log/data.mdb'],
    [48, 'data/restoring'],
  ] as const) {
    volume.fill(kib);
    const where = join(volume.directory, path);
    await expect(restore()).rejects.toThrow(`can't use ${where}: its disk has no room, with `);
    await expect(restore()).rejects.toThrow('make room');
    expect(readdirSync(volume.directory)).toEqual(['filler']);
    volume.free();
  }
  expect((await restore()).head).toMatch(/^\w{16}$/);
});

test('is restored into an empty directory only', async () => {
  const log = await open(temporaryDirectory());
  await write(log, 3);
  const whole = await all((await log.backup()).chunks());
  const restore = (directory: string) => restoreBackup(of(whole), 'b', directory, SILENT);
  const used = temporaryDirectory();
  await restore(used);
  const before = readFileSync(join(used, 'log', 'data.mdb'));
  await expect(restore(used)).rejects.toThrow(/is not empty.*it has log\. Name an empty directory/);
  expect(readFileSync(join(used, 'log', 'data.mdb'))).toEqual(before);
  const other = temporaryDirectory();
  writeFileSync(join(other, 'notes'), '');
  await expect(restore(other)).rejects.toThrow('it has notes');
  // A volume of its own, with what an earlier attempt has left.
  const volume = temporaryDirectory();
  mkdirSync(join(volume, 'lost+found'));
  mkdirSync(join(volume, 'restoring', 'log'), { recursive: true });
  writeFileSync(join(volume, 'restoring', 'log', 'data.mdb'), 'half');
  await restore(volume);
  const running = temporaryDirectory();
  await open(running);
  await expect(restore(running)).rejects.toThrow('another process uses');
});

test('ends where the disk has no room for what is stored meanwhile', async () => {
  const log = await open(temporaryDirectory());
  await write(log, 30);
  const backup = await log.backup();
  const chunks = backup.chunks()[Symbol.asyncIterator]();
  await chunks.next();
  disk.full = true;
  await expect(write(log, 1)).rejects.toMatchObject({ reason: 'storage-full' });
  disk.full = false;
  const rest = all({ [Symbol.asyncIterator]: () => chunks });
  await expect(rest).rejects.toMatchObject({ reason: 'storage-full' });
  await write(log, 1);
  const another = await log.backup();
  await all(another.chunks());
});

test('ends where the log is closed, and is none of a log in memory', async () => {
  const log = await open(temporaryDirectory());
  await write(log, 30);
  const backup = await log.backup();
  const chunks = backup.chunks()[Symbol.asyncIterator]();
  await chunks.next();
  await log.close();
  await expect(all({ [Symbol.asyncIterator]: () => chunks })).rejects.toThrow('the log is closed');
  backup.release();
  await expect(new EventLog(new MemoryEngine()).backup()).rejects.toThrow(BackupUnsupportedError);
});
