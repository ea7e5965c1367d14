import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import type { Commit } from '../append-queue.js';
import type { DedupWindow, RecentIds } from '../recent-ids.js';
import { positionKey, readPositionKey } from './run-key.js';
import { PAGE_VALUE_BYTES } from './run-table.js';

/** So many records are put between looks for some to remove. */
const FORGET_EVERY = 32;
/** A record fits on a page of LMDB: its time, and so many ids. */
const IDS_OF_RECORD = (PAGE_VALUE_BYTES - 8) / 8;

/** The id hashes of the events, by the commit, so that a start knows the newest ids without reading the log. */
export class IdTable {
  /** Put since records were looked at for removal. */
  private records = 0;

  constructor(
    private readonly db: Database<Buffer, Buffer>,
    private readonly window: DedupWindow,
    private readonly recent: RecentIds,
  ) {}

  /** Remembers the newest ids, by a time of the log's. */
  recall(now: number): void {
    const records: { first: Position; storedAt: number; ids: Uint32Array }[] = [];
    let left = this.window.ids;
    for (const { key, value } of this.db.getRange({ reverse: true })) {
      const found = { first: readPositionKey(key), ...readRecord(value) };
      if (left <= 0 || found.storedAt < now - this.window.milliseconds) break;
      records.push(found);
      left -= idCount(found.ids);
    }
    this.recent.reserve(this.window.ids - left);
    for (const { first, storedAt, ids } of records.toReversed()) {
      for (let i = 0; i < ids.length; i += 2) {
        if (ids[i] !== 0 || ids[i + 1] !== 0)
          this.recent.add(ids[i], ids[i + 1], first + i / 2, storedAt);
      }
    }
  }

  /** To be called within a batch. */
  put({ runs, ids }: Commit): void {
    if (this.window.ids === 0 || runs.length === 0) return;
    const { first, storedAt } = runs[0];
    const all = joined(ids);
    for (let at = 0; at < all.length; at += 2 * IDS_OF_RECORD) {
      const part = all.subarray(at, at + 2 * IDS_OF_RECORD);
      void this.db.put(positionKey(first + at / 2), record(storedAt, part));
      this.records++;
    }
    if (this.records >= FORGET_EVERY) this.forget(storedAt);
  }

  /** Removes records of which no id is needed any more: more than were put. */
  private forget(now: number): void {
    const oldest = this.recent.oldest(now);
    const limit = 2 * this.records;
    this.records = 0;
    // A record ends where the next one begins.
    let previous: Buffer | undefined;
    for (const key of this.db.getKeys({ limit })) {
      if (readPositionKey(key) > oldest) break;
      if (previous) void this.db.remove(previous);
      previous = key;
    }
  }
}

/** Those that are remembered: not of events without an id of their own. */
function idCount(ids: Uint32Array): number {
  let count = 0;
  for (let i = 0; i < ids.length; i += 2) if (ids[i] !== 0 || ids[i + 1] !== 0) count++;
  return count;
}

/** The time of a commit, then the id hashes of some of its events, in order of position. */
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
