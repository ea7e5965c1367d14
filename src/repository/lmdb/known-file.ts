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
import { syncDirectory } from './sync-directory.js';

/** The name of the note: a file beside data.mdb which says that data.mdb was whole, and which file that was. */
export const NOTE = 'opened';
/** The name of an empty file beside the note. No program can set a ctime, so a copied mark does not match its note. */
export const MARK = 'opened-mark';

/**
 * The note is JSON. This one was written while the log was open, with each commit flushed:
 *
 *     {"file":"4718605 1764237704123456789","mark":"1764237704125000000"}
 */
interface Note {
  /** The inode and the birth time of data.mdb. */
  readonly file: string;
  /** The ctime of the mark. */
  readonly mark: string;
  /** The ctime of data.mdb when it was closed. Only in the state `closed`. */
  readonly closed?: string;
  /** The bootId() of the machine when the log was opened. Only in the state `unflushed`. */
  readonly unflushedSince?: string;
}

/**
 * The states of a log of which a note can be written:
 * - flushing: it is open, and each commit is flushed.
 * - unflushed: it is open, and commits are not flushed.
 * - closed: it is flushed and closed.
 *
 * A start removes the note before LMDB opens the file, and writes `flushing` or `unflushed` once the file is found
 * whole. An orderly end replaces that by `closed`. With no note, or one that does not fit, the next start checks all
 * of the file.
 */
export type LogState = 'closed' | 'flushing' | 'unflushed';

/**
 * Returns true if data.mdb is the file that the last start opened, and only that process has written to it since:
 * - The note has the file's inode and birth time, and the ctime of the mark.
 * - closed: The file's ctime is still the one in the note.
 * - unflushed: The machine has not restarted since, because a crash of it may lose parts of commits.
 * - The file's newest transaction is the one that lock.mdb names.
 *
 * It does not notice a copy over data.mdb and lock.mdb alone after the process was killed: the ctime of an open
 * data.mdb changes with each commit, so the note can't have it.
 */
export function isKnown(directory: string, file: LogFile, meta: Meta): boolean {
  const note = readNote(directory);
  if (note?.file !== identity(file) || note.mark !== markTime(directory)) return false;
  if (note.closed !== undefined && note.closed !== String(file.stats.ctimeNs)) return false;
  if (note.unflushedSince !== undefined && note.unflushedSince !== bootId()) return false;
  const lastTransaction = transactionOfLock(directory);
  // LMDB writes the meta page before lock.mdb, and a process may be killed between the two.
  return lastTransaction === meta.transaction || lastTransaction === meta.transaction - 1;
}

/** Removes the note, which is not true of what is written from now on. No power cut brings it back. */
export function removeNote(directory: string): void {
  const path = join(directory, NOTE);
  try {
    rmSync(path, { force: true });
    syncDirectory(directory);
  } catch (error) {
    throw accessError(path, error);
  }
}

/** Writes the note of a log that is whole. If that fails, the next start checks the whole log. */
export function writeNote(directory: string, file: LogFile, state: LogState): void {
  const unfinished = join(directory, `${NOTE}.new`);
  try {
    // Once made, the mark is never touched again.
    if (markTime(directory) === undefined) closeSync(openSync(join(directory, MARK), 'a'));
    const note: Partial<Note> = {
      file: identity(file),
      mark: markTime(directory),
      closed: state === 'closed' ? String(file.ctime()) : undefined,
      unflushedSince: state === 'unflushed' ? bootId() : undefined,
    };
    writeFileSync(unfinished, JSON.stringify(note), { flush: true });
    renameSync(unfinished, join(directory, NOTE));
    syncDirectory(directory);
  } catch {
    // The disk may be full. If there is an older note, it says `flushing` or `unflushed`, which promises less.
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

/** Returns inode and birth time. It leaves out the device, whose number changes with the machine or the mount. */
function identity({ stats }: LogFile): string {
  return `${stats.ino} ${stats.birthtimeNs}`;
}

/** Returns Linux's id of the machine's current start. Where there is none, each call returns a different text. */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return `unknown ${process.pid} ${Date.now()}`;
  }
}

/** Returns the number of LMDB's last transaction, from lock.mdb: struct MDB_txbody of mdb.c. */
function transactionOfLock(directory: string): number | undefined {
  try {
    return Number(readFileSync(join(directory, 'lock.mdb')).readBigUInt64LE(8));
  } catch {
    return undefined;
  }
}
