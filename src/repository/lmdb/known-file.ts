import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Meta } from './lmdb-file.js';
import type { LogFile } from './log-file.js';

/** The name of the note beside a log's file that it was whole when it was opened last. */
export const NOTE = 'opened';

interface Note {
  /** Which file that was: a copy is another. */
  readonly file: string;
  /** The machine's start since which it is written without being flushed. */
  readonly unflushedSince?: string;
}

/**
 * Whether a file is the one that this version opened last, and what it became by that alone: then LMDB itself has
 * seen to it that it is whole, also where the process was killed. It is not, or there is no telling, when it
 * - is another file, such as a copy: then its inode or the time at which that was made differs;
 * - was written over in place, such as by a copy that is put back: LMDB notes the last transaction in lock.mdb, too;
 * - was not flushed, and the machine has been started since.
 */
export function isKnown(directory: string, file: LogFile, meta: Meta): boolean {
  const note = readNote(directory);
  if (note?.file !== identity(file)) return false;
  if (note.unflushedSince !== undefined && note.unflushedSince !== bootId()) return false;
  const noted = notedTransaction(directory);
  // LMDB writes the meta page first.
  return noted === meta.transaction || noted === meta.transaction - 1;
}

/**
 * Notes that a log is whole. Where that can't be written, the next start checks it again.
 *
 * @param flushed each commit is, or the log is closed
 */
export function noteKnown(directory: string, file: LogFile, flushed: boolean): void {
  const note: Note = { file: identity(file), ...(flushed ? {} : { unflushedSince: bootId() }) };
  const text = JSON.stringify(note);
  try {
    if (JSON.stringify(readNote(directory)) === text) return;
    const unfinished = join(directory, `${NOTE}.new`);
    writeFileSync(unfinished, text);
    renameSync(unfinished, join(directory, NOTE));
  } catch {
    // As said above.
  }
}

function readNote(directory: string): Note | undefined {
  try {
    return JSON.parse(readFileSync(join(directory, NOTE), 'utf8')) as Note;
  } catch {
    return undefined;
  }
}

/** Not the device: its number changes with the machine or the mount. */
function identity({ stats }: LogFile): string {
  return `${stats.ino} ${stats.birthtimeNs}`;
}

/** What Linux calls one start of the machine; where there is none, no start is the same as another. */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return `unknown ${process.pid} ${Date.now()}`;
  }
}

/** In lock.mdb: struct MDB_txbody of mdb.c. The memory of all processes that have it open, and kept without any. */
function notedTransaction(directory: string): number | undefined {
  try {
    return Number(readFileSync(join(directory, 'lock.mdb')).readBigUInt64LE(8));
  } catch {
    return undefined;
  }
}
