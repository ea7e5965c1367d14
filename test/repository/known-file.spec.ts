import { copyFileSync, cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { LmdbRepository } from '../../src/repository/lmdb/lmdb-repository.js';
import { ids, readAll } from '../contract/reading.js';
import { temporaryDirectory } from '../contract/temporary.js';
import { checked } from '../wire/events.js';
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

/** A log whose process was killed, or which was closed. */
async function stoppedLog(fsync: boolean, how: 'killed' | 'closed'): Promise<string> {
  const directory = newDirectory();
  const log = new LogProcess();
  endings.push(() => log.kill());
  await log.call('open', directory, fsync);
  for (const id of ['a', 'b', 'c'])
    expect(await log.call('append', 'w', 't', [id], 20_000)).toHaveProperty('stored');
  if (how === 'closed') await log.call('close');
  await log.kill();
  return directory;
}

/** Changes a byte of a body in place, which only a check of the whole log finds: there, a number of the page. */
function damage(directory: string): void {
  const file = readFileSync(dataOf(directory));
  const pages = Array.from({ length: file.length / 4096 }, (_, i) => i * 4096);
  // An overflow page that is the newest of its place: the last one.
  const at = pages.findLast((page) => file.readUInt16LE(page + 18) === 4)!;
  file[at] ^= 1;
  writeFileSync(dataOf(directory), file);
}

async function open(directory: string, fsync = true): Promise<string[]> {
  const log = await LmdbRepository.open({ directory, fsync });
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
    const directory = await stoppedLog(fsync, how);
    damage(directory);
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
      const whole = await stoppedLog(true, how);
      expect(await open(change(whole) ?? whole)).toEqual(['a', 'b', 'c']);
      const torn = await stoppedLog(true, how);
      damage(torn);
      await expect(open(change(torn) ?? torn)).rejects.toThrow(DAMAGED);
    }
  });

  it('one that was written over in place by what it was earlier', async () => {
    const directory = await stoppedLog(true, 'closed');
    const backup = join(newDirectory(), 'backup');
    damage(directory);
    copyFileSync(dataOf(directory), backup);
    const log = await LmdbRepository.open({ directory, fsync: true });
    await log.openWriter().append(checked({ topic: 't', id: 'd' }));
    await log.close();
    writeFileSync(dataOf(directory), readFileSync(backup));
    await expect(open(directory)).rejects.toThrow(DAMAGED);
  });

  it('one that was not flushed when the machine was started anew', async () => {
    const note = (directory: string): string => join(directory, 'log', 'opened');
    for (const how of ['killed', 'closed'] as const) {
      const directory = await stoppedLog(false, how);
      damage(directory);
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
