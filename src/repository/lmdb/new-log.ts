import { lstatSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import { join } from 'node:path';
import { refuseFullDisk } from './room.js';
import type { Store } from './store.js';
import { syncDirectory } from './sync-directory.js';

/** The directory, within the data directory, in which a restored log is until it is whole (restore.ts). */
export const UNFINISHED_RESTORE = 'restoring';

/**
 * Makes a log if there is none. The log is flushed under another name before it gets its own, because LMDB writes the
 * first pages in place: a power cut meanwhile would leave a file that looks like a damaged log.
 */
export async function makeNewLog(
  directory: string,
  name: string,
  ownFiles: readonly string[],
  open: (path: string) => Store,
): Promise<void> {
  const path = join(directory, name);
  // Not existsSync(), which follows links: a link to a disk that is not mounted yet does not mean that there is no log.
  if (lstatSync(join(path, 'data.mdb'), { throwIfNoEntry: false })) return;
  refuseForeignFiles(path, ownFiles);
  refuseUnfinishedRestore(directory);
  const unfinished = join(directory, `new-${name}`);
  rmSync(unfinished, { recursive: true, force: true });
  refuseFullDisk(directory);
  mkdirSync(unfinished);
  await open(unfinished).close();
  await flush(join(unfinished, 'data.mdb'));
  syncDirectory(unfinished);
  // If the log's file was moved away, lock.mdb and the note are still there.
  rmSync(path, { recursive: true, force: true });
  renameSync(unfinished, path);
  syncDirectory(directory);
}

/** Throws if the directory has files that this service did not make, such as the log's file under another name. */
function refuseForeignFiles(path: string, ownFiles: readonly string[]): void {
  if (!lstatSync(path, { throwIfNoEntry: false })) return;
  const others = readdirSync(path).filter((name) => !ownFiles.includes(name));
  if (others.length > 0)
    throw new Error(
      `${path} has no data.mdb, but other files: ${others.join(', ')}. Give the log's file its name back, or move ` +
        'all of them away to start anew',
    );
}

/** Throws if a restore was broken off: an empty log is not what was wanted, and a backup is never restored over it. */
function refuseUnfinishedRestore(directory: string): void {
  const unfinished = join(directory, UNFINISHED_RESTORE);
  if (!lstatSync(unfinished, { throwIfNoEntry: false })) return;
  throw new Error(
    `the restore of a backup into ${directory} was broken off: restore it again, or remove ${unfinished} to start with ` +
      'an empty log',
  );
}

async function flush(path: string): Promise<void> {
  const file = await openFile(path, 'r+');
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}
