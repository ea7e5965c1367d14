import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

const PAGE_BYTES = 4096;
const META_PAGES = 2;
// Within a meta page: a header of 24 bytes, then struct MDB_meta of lmdb's mdb.c.
const MAGIC = 0xbeefc0de;
const MAGIC_AT = 24;
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
  const meta = Buffer.alloc(META_PAGES * PAGE_BYTES);
  if (readSync(file, meta, 0, meta.length, 0) < meta.length) return `it has only ${size} bytes`;
  const pages = [0, PAGE_BYTES].map((at) => meta.subarray(at, at + PAGE_BYTES));
  if (pages.some((page) => page.readUInt32LE(MAGIC_AT) !== MAGIC)) return 'it is not an LMDB file';
  // A crash may leave the newer meta page behind what it speaks of; LMDB then goes on from the older.
  const lastPage = Math.min(...pages.map((page) => Number(page.readBigUInt64LE(LAST_PAGE_AT))));
  const needed = (lastPage + 1) * PAGE_BYTES;
  if (size < needed - SLACK_BYTES) return `it has ${size} bytes of ${needed}`;
  return undefined;
}
