import { setImmediate as nextTurn } from 'node:timers/promises';
import type { LogFile } from './log-file.js';
import { type Meta, newestMeta } from './lmdb-file.js';

/** A log is not what LMDB wrote. The message ends a sentence; DamagedLogError has the whole. */
export class DamageError extends Error {}

/** Where a log says what it does that takes long. */
export interface Notices {
  info(message: string): void;
  error(message: string): void;
}

/** The file may be a little shorter than its last page: that may have been given back before it was written. */
const SLACK_BYTES = 2 ** 20;
/** Others run, and a signal is heard, after each such time (milliseconds). */
const SLICE = 20;
/** A check that takes longer than this (milliseconds) says how far it is, and again after each such time. */
const NOTICE_INTERVAL = 5_000;

/** Puts a cause and what to do around what was found. */
export function damaged(path: string, { message }: Error): Error {
  return new Error(
    `the log ${path} is damaged (${message}): restore it from a copy that was made while it was closed, or ` +
      'from a snapshot of its volume, or move it away to start anew',
  );
}

/**
 * What a log's meta page says, of a file that is as long as that needs.
 *
 * @throws DamageError for what is cut short, or no LMDB file
 */
export function checkedMeta({ descriptor, stats }: LogFile): Meta {
  const meta = newestMeta(descriptor);
  if (typeof meta === 'string') throw new DamageError(meta);
  const needed = (meta.lastPage + 1) * meta.pageBytes;
  if (Number(stats.size) < needed - SLACK_BYTES)
    throw new DamageError(`it has ${stats.size} bytes of ${needed}`);
  return meta;
}

/** Runs a check to its end, some of it in each turn of the event loop; it yields which share of it is done. */
export async function runCheck(
  what: string,
  check: Iterable<number>,
  notices: Notices,
): Promise<void> {
  const start = performance.now();
  let turn = start;
  let said = start;
  for (const done of check) {
    const now = performance.now();
    if (now - said >= NOTICE_INTERVAL) {
      said = now;
      notices.info(`${what}: ${Math.floor(100 * done)}%`);
    }
    if (now - turn < SLICE) continue;
    await nextTurn();
    turn = performance.now();
  }
  if (said > start) notices.info(`${what}: done in ${Math.round(performance.now() - start)} ms`);
}
