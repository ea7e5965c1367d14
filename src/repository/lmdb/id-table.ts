import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import type { EngineCommit } from '../engine.js';
import type { CommitIds } from '../recent-ids.js';
import type { PositionSum } from './position-sum.js';
import { pagedKeys, positionKey, readPositionKey } from './run-key.js';
import { PAGE_VALUE_BYTES } from './run-table.js';

/** After this many new records, the table looks for old ones to remove. */
const FORGET_EVERY = 32;
/** The most ids of one record, so that it fits on one page of LMDB: 8 bytes for the time, and 8 for each id. */
const IDS_OF_RECORD = (PAGE_VALUE_BYTES - 8) / 8;

/**
 * The id hashes of the events, so that a start knows the newest ids without reading the log. A commit has one record
 * for each 508 events. If it stored 600 events from position 1000 on, its records have the keys 1000 and 1508.
 */
export class IdTable {
  /** How many records were put since forget() was called last. */
  private records = 0;

  constructor(private readonly db: Database<Buffer, Buffer>) {}

  *newestFirst(): Iterable<CommitIds> {
    for (const { key, value } of this.db.getRange({ reverse: true }))
      yield { first: readPositionKey(key), ...readRecord(value) };
  }

  /** Yields the positions of all records. */
  *positions(): Iterable<Position> {
    for (const key of pagedKeys(this.db)) yield readPositionKey(key);
  }

  /** Call within a batch. */
  put({ runs, ids, horizon }: EngineCommit, sum: PositionSum): void {
    if (ids.length === 0) return;
    const { first, storedAt } = runs[0];
    const all = joined(ids);
    for (let at = 0; at < all.length; at += 2 * IDS_OF_RECORD) {
      const part = all.subarray(at, at + 2 * IDS_OF_RECORD);
      const position = first + at / 2;
      void this.db.put(positionKey(position), record(storedAt, part));
      sum.add('ids', position);
      this.records++;
    }
    if (this.records >= FORGET_EVERY) this.forget(horizon.position, sum);
  }

  /** Removes records of events before a position, up to twice as many as were put since the last call. */
  private forget(position: Position, sum: PositionSum): void {
    const limit = 2 * this.records;
    this.records = 0;
    // A record's events end where the next record begins, so a record can go if the next one begins up to `position`.
    let previous: Buffer | undefined;
    for (const key of this.db.getKeys({ limit })) {
      if (readPositionKey(key) > position) break;
      if (previous) {
        void this.db.remove(previous);
        sum.subtract('ids', readPositionKey(previous));
      }
      previous = key;
    }
  }
}

/** Returns a record: the time of its commit, then the id hashes of some of its events, in the order of positions. */
function record(storedAt: number, ids: Uint32Array): Buffer {
  const bytes = Buffer.allocUnsafe(8 + ids.byteLength);
  bytes.writeDoubleLE(storedAt, 0);
  Buffer.from(ids.buffer, ids.byteOffset, ids.byteLength).copy(bytes, 8);
  return bytes;
}

function joined(parts: readonly Uint32Array[]): Uint32Array {
  if (parts.length === 1) return parts[0];
  const all = new Uint32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function readRecord(bytes: Buffer): { storedAt: number; ids: Uint32Array } {
  const ids = new Uint32Array((bytes.length - 8) / 4);
  bytes.copy(Buffer.from(ids.buffer), 0, 8);
  return { storedAt: bytes.readDoubleLE(0), ids };
}
