import {
  closeSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { accessError } from './access.js';
import type { Meta } from './lmdb-file.js';
import type { LogFile } from './log-file.js';
import { syncDirectory } from './new-log.js';

/** The note beside a log's file which says that the file was whole, and which file that was. */
export const NOTE = 'opened';
/** An empty file beside it. The note holds its ctime, which no program can set, so a copy of both does not match. */
export const MARK = 'opened-mark';

interface Note {
  /** The file's inode and birth time. */
  readonly file: string;
  /** The ctime of the mark. */
  readonly mark: string;
  /** The ctime of the log's file when it was closed; absent while it is open. */
  readonly closed?: string;
  /** The machine's start during which the log is written without being flushed. */
  readonly unflushedSince?: string;
}

/** closed: the log is flushed and closed. flushing, unflushed: it is open, and each commit is flushed or none is. */
export type LogState = 'closed' | 'flushing' | 'unflushed';

/**
 * True if this is the same file (inode and birth time) that the last start opened, nothing was copied over it or its
 * note, its newest transaction is the one in lock.mdb, and it was flushed or the machine has not restarted since.
 * Otherwise the file may be a copy, and all of it is checked.
 *
 * A copy over data.mdb and lock.mdb alone, after the process was killed, is not noticed: while a log is open its ctime
 * changes with each commit.
 */
export function isKnown(directory: string, file: LogFile, meta: Meta): boolean {
  const note = readNote(directory);
  if (note?.file !== identity(file) || note.mark !== markTime(directory)) return false;
  if (note.closed !== undefined && note.closed !== String(file.stats.ctimeNs)) return false;
  if (note.unflushedSince !== undefined && note.unflushedSince !== bootId()) return false;
  const lastTransaction = transactionOfLock(directory);
  // LMDB writes the meta page first.
  return lastTransaction === meta.transaction || lastTransaction === meta.transaction - 1;
}

/** Removes the note, so that what is written from now on is not covered by it, even after a power cut. */
export function removeNote(directory: string): void {
  const path = join(directory, NOTE);
  try {
    rmSync(path, { force: true });
    syncDirectory(directory);
  } catch (error) {
    throw accessError(path, error);
  }
}

/** Notes that a log is whole. If the note can't be written, the next start checks the log again. */
export function writeNote(directory: string, file: LogFile, state: LogState): void {
  const unfinished = join(directory, `${NOTE}.new`);
  try {
    // Once made, the mark is never touched again.
    if (markTime(directory) === undefined) closeSync(openSync(join(directory, MARK), 'a'));
    const note: Partial<Note> = {
      file: identity(file),
      mark: markTime(directory),
      ...(state === 'closed' ? { closed: String(file.ctime()) } : {}),
      ...(state === 'unflushed' ? { unflushedSince: bootId() } : {}),
    };
    writeFileSync(unfinished, JSON.stringify(note), { flush: true });
    renameSync(unfinished, join(directory, NOTE));
    syncDirectory(directory);
  } catch {
    // A full disk, for one. The note that is there, if any, was written for a state that promises less.
  }
}

function readNote(directory: string): Note | undefined {
  try {
    return JSON.parse(readFileSync(join(directory, NOTE), 'utf8')) as Note;
  } catch {
    return undefined;
  }
}

function markTime(directory: string): string | undefined {
  return statSync(join(directory, MARK), {
    bigint: true,
    throwIfNoEntry: false,
  })?.ctimeNs.toString();
}

/** The device is left out: its number changes with the machine or the mount. */
function identity({ stats }: LogFile): string {
  return `${stats.ino} ${stats.birthtimeNs}`;
}

/** Linux's id of the machine's current start. Without one, each call returns another id. */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return `unknown ${process.pid} ${Date.now()}`;
  }
}

/** LMDB keeps the number of its last transaction in lock.mdb, a file mapped into memory: struct MDB_txbody of mdb.c. */
function transactionOfLock(directory: string): number | undefined {
  try {
    return Number(readFileSync(join(directory, 'lock.mdb')).readBigUInt64LE(8));
  } catch {
    return undefined;
  }
}
