import { execFileSync } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import { ids, readAll } from '../contract/reading.js';
import { temporaryDirectory } from '../contract/temporary.js';
import { LogProcess } from './log-process.js';

const endings: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).toReversed()) await end();
});

function newDirectory(): string {
  const { path, remove } = temporaryDirectory();
  endings.push(remove);
  return path;
}

const dataOf = (directory: string): string => join(directory, 'log', 'data.mdb');
const DAMAGED = /data\.mdb is damaged \(/;

/** A log whose process was killed, or which was closed, and which was damaged while it was open. */
async function stoppedLog(
  fsync: boolean,
  how: 'killed' | 'closed',
  isDamaged: boolean,
): Promise<string> {
  const directory = newDirectory();
  const log = new LogProcess();
  endings.push(() => log.kill());
  await log.call('open', directory, fsync);
  for (const id of ['a', 'b', 'c'])
    expect(await log.call('append', 'w', 't', [id], 20_000)).toHaveProperty('stored');
  if (isDamaged) damage(directory);
  if (how === 'closed') await log.call('close');
  await log.kill();
  return directory;
}

/** Changes a byte in place that only a check of the whole log looks at: a page's own number. */
function damage(directory: string): void {
  const bytes = readFileSync(dataOf(directory));
  const pages = Array.from({ length: bytes.length / 4096 }, (_, i) => i * 4096);
  // An overflow page that is the newest of its place: the last one.
  const at = pages.findLast((page) => bytes.readUInt16LE(page + 18) === 4)!;
  const file = openSync(dataOf(directory), 'r+');
  writeSync(file, Buffer.from([bytes[at] ^ 1]), 0, 1, at);
  closeSync(file);
}

async function open(directory: string, fsync = true): Promise<string[]> {
  const log = await openLmdbLog({ directory, fsync });
  try {
    return ids(await readAll(log, 't'));
  } finally {
    await log.close();
  }
}

describe('a start reads all of a log only where it may not be what this service left', () => {
  it.each([
    { fsync: true, how: 'killed' },
    { fsync: true, how: 'closed' },
    { fsync: false, how: 'killed' },
    { fsync: false, how: 'closed' },
  ] as const)('not one that was $how (fsync: $fsync)', async ({ fsync, how }) => {
    const directory = await stoppedLog(fsync, how, true);
    expect(await open(directory, fsync)).toEqual(['a', 'b', 'c']);
  });

  const changes: { what: string; change: (directory: string) => string | void }[] = [
    {
      what: 'a copy of the data directory',
      change: (directory) => {
        const copy = join(newDirectory(), 'copy');
        cpSync(directory, copy, { recursive: true, preserveTimestamps: true });
        return copy;
      },
    },
    {
      what: 'one whose file was replaced by a copy',
      change: (directory) => {
        const file = dataOf(directory);
        copyFileSync(file, `${file}.copy`);
        rmSync(file);
        copyFileSync(`${file}.copy`, file);
      },
    },
    {
      what: 'one over which a copy of the whole directory was put back, note and lock included',
      change: (directory) => {
        const copy = join(newDirectory(), 'copy');
        // cp writes over the files that are there, which keep their inodes.
        execFileSync('cp', ['-a', directory, copy]);
        execFileSync('cp', ['-a', `${copy}/.`, directory]);
      },
    },
    {
      what: 'one without lock.mdb',
      change: (directory) => rmSync(join(directory, 'log', 'lock.mdb')),
    },
    {
      what: 'one of an earlier version',
      change: (directory) => rmSync(join(directory, 'log', 'opened')),
    },
  ];

  it.each(changes)('$what', async ({ change }) => {
    for (const how of ['killed', 'closed'] as const) {
      const whole = await stoppedLog(true, how, false);
      expect(await open(change(whole) ?? whole)).toEqual(['a', 'b', 'c']);
      const torn = await stoppedLog(true, how, true);
      await expect(open(change(torn) ?? torn)).rejects.toThrow(DAMAGED);
    }
  });

  it('one that was written over in place by what it was earlier', async () => {
    const directory = await stoppedLog(true, 'closed', true);
    const backup = join(newDirectory(), 'backup');
    copyFileSync(dataOf(directory), backup);
    const log = new LogProcess();
    endings.push(() => log.kill());
    await log.call('open', directory, true);
    expect(await log.call('append', 'w', 't', ['d'])).toHaveProperty('stored');
    await log.kill();
    writeFileSync(dataOf(directory), readFileSync(backup));
    await expect(open(directory)).rejects.toThrow(DAMAGED);
  });

  it('one whose data.mdb and lock.mdb were written over by a copy since it was closed', async () => {
    const directory = await stoppedLog(true, 'closed', true);
    for (const name of ['data.mdb', 'lock.mdb']) {
      const path = join(directory, 'log', name);
      writeFileSync(path, readFileSync(path));
    }
    await expect(open(directory)).rejects.toThrow(DAMAGED);
  });

  it('one that was written without being flushed, and where that could not be noted', async () => {
    const directory = await stoppedLog(true, 'killed', false);
    mkdirSync(join(directory, 'log', 'opened.new'));
    const log = new LogProcess();
    endings.push(() => log.kill());
    await log.call('open', directory, false);
    damage(directory);
    await log.kill();
    await expect(open(directory, false)).rejects.toThrow(DAMAGED);
  });

  it('one that was not flushed when the machine was started anew', async () => {
    const note = (directory: string): string => join(directory, 'log', 'opened');
    for (const how of ['killed', 'closed'] as const) {
      const directory = await stoppedLog(false, how, true);
      const { unflushedSince, ...rest } = JSON.parse(readFileSync(note(directory), 'utf8')) as {
        unflushedSince?: string;
      };
      if (how === 'closed') {
        expect(unflushedSince).toBeUndefined();
        continue;
      }
      writeFileSync(note(directory), JSON.stringify({ ...rest, unflushedSince: 'another start' }));
      await expect(open(directory)).rejects.toThrow(DAMAGED);
    }
  });
});
