import { setTimeout as sleep } from 'node:timers/promises';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { open as openLmdb } from 'lmdb';
import type { EventLog } from '../../src/repository/event-log.js';
import { LmdbEngine, openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import { positionKey, readRunKey } from '../../src/repository/lmdb/run-key.js';
import { KEEP_ALL } from '../../src/repository/retention.js';
import { type Cursor, parseCursor } from '../../src/wire/cursor.js';
import { LogProcess } from '../repository/log-process.js';
import { checked } from '../wire/events.js';
import { openCheckedLog } from './checked-lmdb.js';
import { eventRepositoryContract } from './event-repository.js';
import { ids, readAll } from './reading.js';
import { temporaryDirectory } from './temporary.js';
import { testClock } from './test-clock.js';

/** `free` is how many bytes of the disk are free; undefined for what really is. */
const disk = vi.hoisted((): { free: number | undefined } => ({ free: undefined }));
vi.mock('node:fs', async (importOriginal) => {
  const fs = await importOriginal<typeof import('node:fs')>();
  const statfsSync = (path: string) => {
    const found = fs.statfsSync(path);
    return disk.free === undefined ? found : Object.assign(found, { bavail: disk.free, bsize: 1 });
  };
  return { ...fs, statfsSync };
});

for (const fsync of [true, false]) {
  eventRepositoryContract(
    `lmdb ${fsync ? 'with fsync' : 'without fsync'}`,
    (directory) => openCheckedLog({ directory, fsync, clock: testClock(() => Date.now()) }),
    {
      reopens: true,
      failWrites: () => {
        disk.free = 0;
        return () => (disk.free = undefined);
      },
    },
  );
}

describe('lmdb', () => {
  const endings: (() => Promise<unknown> | void)[] = [];
  const opened = new Set<EventLog>();

  async function open(directory: string, fsync: boolean): Promise<EventLog> {
    const log = await openLmdbLog({ directory, fsync });
    opened.add(log);
    return log;
  }
  async function close(log: EventLog): Promise<void> {
    opened.delete(log);
    await log.close();
  }
  function newDirectory(): string {
    const { path, remove } = temporaryDirectory();
    endings.push(remove);
    return path;
  }

  afterEach(async () => {
    for (const log of opened) await close(log);
    for (const end of endings.splice(0).toReversed()) await end();
  });

  it('stores while 16 MiB are free beside a commit, and removes down to 8 MiB', async () => {
    const MIB = 2 ** 20;
    const engine = await LmdbEngine.open({ directory: newDirectory(), fsync: false });
    endings.push(
      () => engine.close(),
      () => (disk.free = undefined),
    );
    const refuses = (free: number, bytes: number): boolean => {
      disk.free = free;
      return engine.refusal(bytes) !== undefined;
    };
    // A new log has a few free pages.
    const slack = 64 * 1024;
    expect(refuses(17 * MIB, MIB)).toBe(false);
    expect(refuses(17 * MIB - slack, MIB)).toBe(true);
    expect(refuses(8 * MIB, 0)).toBe(false);
    expect(refuses(8 * MIB - slack, 0)).toBe(true);
  });

  it('remembers across a restart how far the clock was ahead of the log', async () => {
    const directory = newDirectory();
    const clock = { ...testClock(() => Date.now()), lag: () => 3_600_000 };
    const before = await openLmdbLog({ directory, fsync: false, clock });
    const { last } = await before.openWriter().append(checked({ topic: 't' }));
    // So much later that the clock's own allowance for rounding does not reach it.
    const later = Date.now() + 10;
    await sleep(30);
    await before.close();
    const after = await open(directory, false);
    // The log's lag of an hour is added: the event counts as stored up to an hour later than it was.
    expect(await after.positionBefore('t', later)).toBe(last.position - 1);
  });

  it('reads from its file what the tail in memory no longer holds', async () => {
    const log = await open(newDirectory(), false);
    const writer = log.openWriter();
    const body = 'x'.repeat(512 * 1024);
    await writer.append(checked({ topic: 'old', id: 'first' }, { topic: 'old', id: 'second' }));
    // These are 40 MiB, of which the tail holds 32; the tail's oldest events are a part of a run of three.
    for (let i = 0; i < 40; i++) {
      const small = (n: number) => ({ topic: 'big', id: `${i}-${n}` });
      await writer.append(checked(small(0), { ...small(1), body }, { ...small(2), body }));
    }
    await writer.append(checked({ topic: 'old', id: 'third' }));

    expect(ids(await readAll(log, 'old'))).toEqual(['first', 'second', 'third']);
    expect(ids(await readAll(log, 'old', 1))).toEqual(['second', 'third']);
    const all = await readAll(log, 'big');
    expect(ids(all)).toEqual(
      Array.from({ length: 120 }, (_, i) => `${Math.floor(i / 3)}-${i % 3}`),
    );
    for (let i = 0; i < all.length; i += 13) {
      const { position } = all[i];
      const rest = await readAll(log, 'big', position, 8 * 2 ** 20);
      expect(rest).toEqual(all.filter((event) => event.position > position));
    }
  });

  it.each([true, false])(
    'goes on after a clean stop, and old cursors stay good (fsync: %s)',
    async (fsync) => {
      const directory = newDirectory();
      let log = await open(directory, fsync);
      const { last } = await log.openWriter().append(checked({ topic: 't' }));
      for (let i = 0; i < 3; i++) {
        await close(log);
        log = await open(directory, fsync);
        expect(log.cursorAt(log.head)).toEqual(last);
      }
      const next = (await log.openWriter().append(checked({ topic: 't' }))).last;
      expect(next.position).toBe(last.position + 1);
      // Each opening begins an epoch, because nothing else would tell this log from a copy that was opened as well.
      expect(next.epoch).not.toBe(last.epoch);
      expect([log.locate(last), log.locate(next)]).toEqual(['in-log', 'in-log']);
    },
  );

  async function killedAfter(directory: string, fsync: boolean): Promise<Cursor> {
    const child = new LogProcess();
    endings.push(() => child.kill());
    await child.call('open', directory, fsync);
    let last = '';
    for (let i = 0; i < 5; i++) {
      const outcome = await child.call('append', 'w', 't', [`${i}`]);
      expect(outcome).toHaveProperty('stored');
      last = 'stored' in outcome ? outcome.stored : '';
    }
    await child.kill();
    return parseCursor(last)!;
  }

  it('has all that it acknowledged, and its cursors, after it was killed with fsync', async () => {
    const directory = newDirectory();
    const last = await killedAfter(directory, true);
    const log = await open(directory, true);
    expect(log.cursorAt(log.head)).toEqual(last);
    expect(ids(await readAll(log, 't'))).toEqual(['0', '1', '2', '3', '4']);
  });

  it.each([true, false])(
    'begins a new epoch after it was killed without fsync, and old cursors stay good (then fsync: %s)',
    async (fsync) => {
      const directory = newDirectory();
      const last = await killedAfter(directory, false);
      const log = await open(directory, fsync);
      const events = await readAll(log, 't');
      expect(ids(events)).toEqual(['0', '1', '2', '3', '4'].slice(0, events.length));

      const fresh = (await log.openWriter().append(checked({ topic: 't' }))).last;
      expect(fresh.epoch).not.toBe(last.epoch);
      for (let position = 0; position < fresh.position; position++) {
        expect(log.cursorAt(position).epoch).toBe(last.epoch);
        expect(log.locate({ epoch: last.epoch, position })).toBe('in-log');
      }
      // As far as this log knows, the old epoch wrote no event from here on, and the new one wrote none before.
      expect(log.locate({ epoch: last.epoch, position: fresh.position })).toBe('other-epoch');
      expect(log.locate({ epoch: fresh.epoch, position: fresh.position + 1 })).toBe('ahead');

      // After a clean stop, the cursors of both epochs are good.
      await close(log);
      const again = await open(directory, fsync);
      expect(again.cursorAt(again.head)).toEqual(fresh);
      expect(again.locate(last)).toBe('in-log');
    },
  );

  it('refuses a cursor of an epoch from before that epoch began', async () => {
    const directory = newDirectory();
    const last = await killedAfter(directory, false);
    const log = await open(directory, false);
    const fresh = (await log.openWriter().append(checked({ topic: 't' }))).last;
    // This log never gave out this cursor. A copy of the log may have, for another event.
    expect(log.locate({ epoch: fresh.epoch, position: last.position })).toBe('other-epoch');
  });

  it('begins a new epoch in a copy of its directory, and old cursors within it stay good', async () => {
    const [directory, parent] = [newDirectory(), newDirectory()];
    const copy = join(parent, 'copy');
    let log = await open(directory, true);
    const shared = (await log.openWriter().append(checked({ topic: 't', id: 'shared' }))).last;
    await close(log);
    cpSync(directory, copy, { recursive: true, preserveTimestamps: true });

    log = await open(directory, true);
    const onlyHere = (await log.openWriter().append(checked({ topic: 't', id: 'here' }))).last;

    const copied = await open(copy, true);
    expect(ids(await readAll(copied, 't'))).toEqual(['shared']);
    expect(copied.locate(shared)).toBe('in-log');
    expect(copied.locate(onlyHere)).toBe('other-epoch');
    const onlyThere = (await copied.openWriter().append(checked({ topic: 't', id: 'there' }))).last;
    expect(onlyThere.epoch).not.toBe(shared.epoch);
    expect(copied.locate(onlyHere)).toBe('other-epoch');
    expect(log.locate(onlyThere)).toBe('other-epoch');

    // Opened again, the copy keeps its own cursors.
    await close(copied);
    const again = await open(copy, true);
    expect(again.cursorAt(again.head)).toEqual(onlyThere);
  });

  it('restored in place from a copy, refuses cursors of what the copy did not have', async () => {
    const directory = newDirectory();
    const file = join(directory, 'log', 'data.mdb');
    const backup = join(newDirectory(), 'backup');
    const append = async (log: EventLog, id: string) =>
      (await log.openWriter().append(checked({ topic: 't', id }))).last;
    let log = await open(directory, true);
    const kept = await append(log, 'kept');
    await close(log);
    cpSync(file, backup);

    log = await open(directory, true);
    const lost = await append(log, 'lost');
    await close(log);
    writeFileSync(file, readFileSync(backup)); // to the file system, it is the same file

    log = await open(directory, true);
    expect([log.locate(kept), log.locate(lost)]).toEqual(['in-log', 'other-epoch']);
    const fresh = await append(log, 'fresh');
    expect(fresh.position).toBe(lost.position);
    expect([log.locate(lost), log.locate(fresh)]).toEqual(['other-epoch', 'in-log']);
  });

  it('reads a log of format 1, whose runs are not cut into pieces, appends to it, and removes from it', async () => {
    const directory = newDirectory();
    const before = await open(directory, true);
    const bodies = [10, 9_000, 30_000, 4_000].map((size, i) => String(i).repeat(size));
    const writer = before.openWriter();
    for (const [i, body] of bodies.entries())
      await writer.append(checked({ topic: 't', id: `old${i}`, body }));
    await close(before);
    await makeRunsWhole(join(directory, 'log'));

    const again = await open(directory, true);
    expect((await readAll(again, 't')).map(({ body }) => body)).toEqual(bodies);
    await again.openWriter().append(checked({ topic: 't', id: 'new', body: bodies[2] }));
    await close(again);

    const retention = { ...KEEP_ALL, maxBytes: 65_000 };
    const limited = await openLmdbLog({ directory, fsync: true, retention });
    opened.add(limited);
    await limited.openWriter().append(checked({ topic: 't', id: 'newer', body: bodies[2] }));
    const floor = await limited.floor('t');
    expect(ids(await readAll(limited, 't', floor))).toEqual(['old3', 'new', 'newer']);
  });

  it('refuses a log of a format that it does not know', async () => {
    const directory = newDirectory();
    const root = openLmdb({ path: join(directory, 'log'), maxDbs: 8 });
    await root.openDB({ name: 'meta', encoding: 'json' }).put('format', 3);
    await root.close();
    await expect(openLmdbLog({ directory, fsync: true })).rejects.toThrow(/format 3/);
  });
});

/** Turns a log into one of format 1: puts the pieces of each run together. */
async function makeRunsWhole(path: string): Promise<void> {
  const root = openLmdb({ path, maxDbs: 8 });
  const bytes = { encoding: 'binary', keyEncoding: 'binary' } as const;
  const runs = root.openDB<Buffer, Buffer>({ name: 'runs', ...bytes });
  const pieces = root.openDB<Buffer, Buffer>({ name: 'pieces', ...bytes });
  const meta = root.openDB<number, string>({ name: 'meta', encoding: 'json' });
  const all = [...pieces.getRange({})];
  expect(all.length).toBeGreaterThan(5);
  const heads = [...runs.getRange({})];
  for (const { key, value } of heads) {
    const first = positionKey(readRunKey(key).first);
    const rest = all.filter((piece) => piece.key.subarray(0, first.length).equals(first));
    await runs.put(key, Buffer.concat([value, ...rest.map((piece) => piece.value)]));
  }
  for (const { key } of all) await pieces.remove(key);
  await meta.put('format', 1);
  await root.close();
}
