import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import type { CommitIndex, CommitRecord } from '../engine.js';
import type { StoredRun } from '../stored-run.js';
import type { PositionSum } from './position-sum.js';
import { pagedKeys, positionKey, readPositionKey } from './run-key.js';

/** A record with more runs would not fit on one page of LMDB (run-table.ts). Very long topics may need more pages. */
const RUNS_OF_RECORD = 64;

/** The commit index: a record for each 64 runs of a commit. */
export class CommitTable implements CommitIndex {
  constructor(private readonly db: Database<Omit<CommitRecord, 'first'>, Buffer>) {}

  *after(position: Position | undefined): Iterable<CommitRecord> {
    const start = position === undefined ? undefined : positionKey(position);
    for (const { key, value } of this.db.getRange({ start, exclusiveStart: start !== undefined }))
      yield { first: readPositionKey(key), ...value };
  }

  *upTo(position: Position): Iterable<CommitRecord> {
    for (const { key, value } of this.db.getRange({ start: positionKey(position), reverse: true }))
      yield { first: readPositionKey(key), ...value };
  }

  /** Yields the positions of all records. */
  *positions(): Iterable<Position> {
    for (const key of pagedKeys(this.db)) yield readPositionKey(key);
  }

  /** Call within a batch. */
  put(stored: readonly StoredRun[], sum: PositionSum): void {
    for (let i = 0; i < stored.length; i += RUNS_OF_RECORD) {
      const part = stored.slice(i, i + RUNS_OF_RECORD);
      const [{ first, storedAt }] = part;
      const runs = part.map((run) => [run.topic, run.first] as const);
      void this.db.put(positionKey(first), { storedAt, runs });
      sum.add('order', first);
    }
  }

  /** Call within a batch. */
  remove(first: Position, sum: PositionSum): void {
    const key = positionKey(first);
    if (!this.db.doesExist(key)) return;
    void this.db.remove(key);
    sum.subtract('order', first);
  }
}
