import type { Position } from '../../wire/cursor.js';
import type { Epochs } from '../epochs.js';
import { type Notices, runCheck } from './check-progress.js';
import { checkError, DamageError } from './damage.js';
import { isKnown } from './known-file.js';
import { checkMetaPages, type Meta, newestMeta } from './lmdb-file.js';
import type { LogFile } from './log-file.js';
import { PositionSum } from './position-sum.js';
import { checkRuns } from './run-check.js';
import type { Store } from './store.js';
import { TreeCheck } from './tree-check.js';

/** The file may end a little before its last page, because LMDB may free that page before it was ever written. */
const SLACK_BYTES = 2 ** 20;

/** The number of positions that are added between two yields. */
const POSITIONS_AT_ONCE = 256;

/**
 * Checks a log's file before LMDB maps it.
 *
 * @returns true if it checked the whole file, false if the file is known to be whole (known-file.ts)
 */
export async function checkFile(
  directory: string,
  file: LogFile,
  notices: Notices,
): Promise<boolean> {
  try {
    const meta = checkedMeta(file);
    if (isKnown(directory, file, meta)) return false;
    checkMetaPages(file.descriptor);
    const check = new TreeCheck(file.descriptor, Number(file.stats.size), meta).run();
    await runCheck(`checking ${file.path}, which may be a copy`, check, notices);
    return true;
  } catch (error) {
    throw checkError(file.path, error);
  }
}

/** Checks the events of a log that LMDB has opened. */
export async function checkEvents(
  file: LogFile,
  store: Store,
  epochs: Epochs,
  notices: Notices,
): Promise<void> {
  const floorOf = (topic: string): Position => store.floor(topic);
  try {
    if (epochs.starts.length === 0 && store.head().position > 0)
      throw new DamageError('it has events, and no epochs');
    const check = checkRuns(store.runs, epochs, store.head(), floorOf);
    await runCheck(`checking the events of ${file.path}`, check, notices);
  } catch (error) {
    throw checkError(file.path, error);
  }
}

/**
 * Returns the PositionSum of a log's tables.
 *
 * @param isChecked true if it is counted anew: the log may be a copy. Else it is what the last commit stored, unless that was one of an
 *   earlier version
 * @throws DamageError if the tables and the last commit contradict each other
 */
export async function positionSum(
  file: LogFile,
  store: Store,
  isChecked: boolean,
  notices: Notices,
): Promise<number> {
  try {
    const stored = store.storedSum();
    if (stored !== undefined && !isChecked) return stored;
    const sum = new PositionSum(0);
    await runCheck(`reading the tables of ${file.path}`, addPositions(store, sum), notices);
    if (stored !== undefined && stored !== sum.value)
      throw new DamageError('its tables are of several moments');
    return sum.value;
  } catch (error) {
    throw checkError(file.path, error);
  }
}

/** Adds the positions that a log's tables name. It yields the share that is added. */
function* addPositions(store: Store, sum: PositionSum): Generator<number> {
  let added = 0;
  for (const [table, position] of store.positions()) {
    sum.add(table, position);
    if (++added % POSITIONS_AT_ONCE === 0) yield added / store.positionCount;
  }
}

/**
 * Returns the newest meta page of a log's file.
 *
 * @throws DamageError if the file is no LMDB file, or is too short for what the meta page says
 */
export function checkedMeta({ descriptor, stats }: LogFile): Meta {
  const meta = newestMeta(descriptor);
  const needed = (meta.lastPage + 1) * meta.pageBytes;
  if (Number(stats.size) < needed - SLACK_BYTES)
    throw new DamageError(`it has ${stats.size} bytes of ${needed}`);
  return meta;
}
