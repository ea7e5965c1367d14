import type { Position } from '../../wire/cursor.js';
import type { Epochs } from '../epochs.js';
import { DamageError, damaged, type Notices, runCheck } from './damage.js';
import { isKnown } from './known-file.js';
import { type Meta, newestMeta } from './lmdb-file.js';
import type { LogFile } from './log-file.js';
import { checkRuns } from './run-check.js';
import type { Store } from './store.js';
import { TreeCheck } from './tree-check.js';

/** The file may be a little shorter than its last page: that may have been given back before it was written. */
const SLACK_BYTES = 2 ** 20;

/**
 * Checks a log's file before LMDB maps it.
 *
 * @returns whether all of it was checked
 */
export async function checkFile(
  directory: string,
  file: LogFile,
  notices: Notices,
): Promise<boolean> {
  try {
    const meta = checkedMeta(file);
    if (isKnown(directory, file, meta)) return false;
    const check = new TreeCheck(file.descriptor, Number(file.stats.size), meta).run();
    await runCheck(`checking ${file.path}, which may be a copy`, check, notices);
    return true;
  } catch (error) {
    throw damaged(file.path, error as Error);
  }
}

/** Checks the events of a log that LMDB has opened. */
export async function checkEvents(
  file: LogFile,
  store: Store,
  epochs: Epochs,
  notices: Notices,
): Promise<void> {
  const floorOf = (topic: string): Position => store.retention.floor(topic);
  try {
    const check = checkRuns(store.runs, epochs, store.head(), floorOf);
    await runCheck(`checking the events of ${file.path}`, check, notices);
  } catch (error) {
    throw damaged(file.path, error as Error);
  }
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
