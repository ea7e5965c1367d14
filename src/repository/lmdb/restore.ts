import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Cursor, formatCursor } from '../../wire/cursor.js';
import { BackupError, type BackupHeader, decodeBackup } from '../backup-file.js';
import { accessError, isSystemError } from './access.js';
import { type Notices } from './check-progress.js';
import { takeDirectory } from './directory-lock.js';
import { LmdbEngine, LOG_DIRECTORY } from './lmdb-engine.js';
import { UNFINISHED_RESTORE } from './new-log.js';
import { syncDirectory } from './sync-directory.js';

/** Beside these, the data directory must be empty. ext4 makes lost+found in every volume. */
const ALLOWED = ['lock', 'lost+found', UNFINISHED_RESTORE];
/** Progress is reported this often (milliseconds). */
const NOTICE_INTERVAL = 5_000;

/** What was restored. */
export interface Restored {
  readonly header: BackupHeader;
  /** The cursor of the newest event. */
  readonly head: string;
}

/**
 * Makes the log of a data directory from a backup. The log gets its name only once all of it is written, flushed and checked; if
 * that fails, the directory is as it was. Opening the log begins an epoch: cursors of the backed-up log up to its head go on
 * working, and later ones are refused.
 *
 * @param name the backup's, for messages
 * @throws an error that says what to do
 */
export async function restoreBackup(
  backup: AsyncIterable<Buffer>,
  name: string,
  directory: string,
  notices: Notices,
): Promise<Restored> {
  const location = resolve(directory);
  const lock = takeDirectory(location);
  const unfinished = join(location, UNFINISHED_RESTORE);
  const wasBrokenOff = existsSync(unfinished);
  const path = join(unfinished, LOG_DIRECTORY, 'data.mdb');
  try {
    refuseOtherFiles(location);
    rmSync(unfinished, { recursive: true, force: true });
    mkdirSync(join(unfinished, LOG_DIRECTORY), { recursive: true });
    // So that its files are shared with the group as those of the data directory are.
    chmodSync(unfinished, statSync(location).mode & 0o7777);
    const header = await copy(backup, path, notices);
    const head = await check(unfinished, notices);
    renameSync(join(unfinished, LOG_DIRECTORY), join(location, LOG_DIRECTORY));
    rmSync(unfinished, { recursive: true });
    syncDirectory(location);
    return { header, head: formatCursor(head) };
  } catch (error) {
    // Before what was written is removed: the error says how much room there was.
    const told = isSystemError(error) ? accessError(path, error) : error;
    rmSync(unfinished, { recursive: true, force: true });
    // Without it, a start would make an empty log where an earlier restore was broken off.
    if (wasBrokenOff) mkdirSync(unfinished);
    else lock.removeMade();
    if (!(error instanceof BackupError)) throw told;
    throw new Error(`the backup ${name} can't be restored: ${error.message}`, { cause: error });
  } finally {
    lock.release();
  }
}

function refuseOtherFiles(location: string): void {
  const others = readdirSync(location).filter((name) => !ALLOWED.includes(name));
  if (others.length > 0)
    throw new Error(
      `the data directory ${location} is not empty, and a backup is never restored over a log: it has ` +
        `${others.join(', ')}. Name an empty directory in FEED_DATA_DIR, or move all of them away`,
    );
}

/** Writes the LMDB file of a backup, and flushes it. */
async function copy(
  backup: AsyncIterable<Buffer>,
  path: string,
  notices: Notices,
): Promise<BackupHeader> {
  const { header, file } = await decodeBackup(backup);
  const target = await open(path, 'wx');
  let noticed = performance.now();
  let written = 0;
  try {
    for await (const bytes of file) {
      await target.writeFile(bytes);
      written += bytes.length;
      if (performance.now() - noticed < NOTICE_INTERVAL) continue;
      noticed = performance.now();
      notices.info(`restoring: ${Math.floor((100 * written) / header.bytes)}%`);
    }
    await target.sync();
  } finally {
    await target.close();
  }
  syncDirectory(join(path, '..'));
  return header;
}

/** Reads all of a log, as a start does with any copy. Returns the cursor of its newest event. */
async function check(directory: string, notices: Notices): Promise<Cursor> {
  const engine = await LmdbEngine.open({ directory, fsync: true, notices });
  const { epochs, head } = engine.start;
  await engine.close();
  return epochs.cursorAt(head);
}
