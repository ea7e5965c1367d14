import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

const META_BYTES = 4096;
// Within a meta page: a header of 24 bytes, then struct MDB_meta of lmdb's mdb.c.
const MAGIC = 0xbeefc0de;
const MAGIC_AT = 24;
/** LMDB's pages are as large as the operating system's: 16 KiB on some. */
const PAGE_BYTES_AT = 48;
const LAST_PAGE_AT = 144;
/** The file may be a little shorter than its last page: that may have been given back before it was written. */
const SLACK_BYTES = 2 ** 20;

/**
 * Refuses an LMDB file that is cut short or none at all: LMDB maps it and would end the process by a signal,
 * without a word. It finds what a broken copy leaves, not every damage.
 */
export function refuseDamaged(path: string): void {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return; // a new log
    throw error;
  }
  try {
    const { size } = fstatSync(file);
    if (size === 0) return; // a new log, of which nothing was written
    const problem = problemOf(file, size);
    if (problem) {
      throw new Error(
        `the log ${path} is damaged (${problem}): restore it from a copy, or move it away to start anew`,
      );
    }
  } finally {
    closeSync(file);
  }
}

function problemOf(file: number, size: number): string | undefined {
  const first = metaAt(file, 0);
  if (!first) return `it has only ${size} bytes`;
  if (!isMeta(first)) return 'it is not an LMDB file';
  const pageBytes = first.readUInt32LE(PAGE_BYTES_AT);
  const second = metaAt(file, pageBytes);
  if (!second) return `it has only ${size} bytes`;
  if (!isMeta(second)) return 'it is not an LMDB file';
  // A crash may leave the newer meta page behind what it speaks of; LMDB then goes on from the older.
  const lastPage = Math.min(lastPageOf(first), lastPageOf(second));
  const needed = (lastPage + 1) * pageBytes;
  if (size < needed - SLACK_BYTES) return `it has ${size} bytes of ${needed}`;
  return undefined;
}

function metaAt(file: number, position: number): Buffer | undefined {
  const meta = Buffer.alloc(META_BYTES);
  return readSync(file, meta, 0, META_BYTES, position) < META_BYTES ? undefined : meta;
}

function isMeta(page: Buffer): boolean {
  return page.readUInt32LE(MAGIC_AT) === MAGIC;
}

function lastPageOf(meta: Buffer): number {
  return Number(meta.readBigUInt64LE(LAST_PAGE_AT));
}
