import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import type { Commit } from '../append-queue.js';
import type { DedupWindow, RecentIds } from '../recent-ids.js';
import { positionKey, readPositionKey } from './run-key.js';

/** So many commits pass between looks for records to remove. */
const FORGET_EVERY = 32;

/** The id hashes of each commit's events, so that a start knows the newest ids without reading the log. */
export class IdTable {
  private commits = 0;

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
      left -= found.ids.length / 2;
    }
    for (const { first, storedAt, ids } of records.toReversed()) {
      for (let i = 0; i < ids.length; i += 2) {
        const hasId = ids[i] !== 0 || ids[i + 1] !== 0;
        if (hasId) this.recent.add(ids[i], ids[i + 1], first + i / 2, storedAt);
      }
    }
  }

  /**
   * To be called within a batch.
   *
   * @param held the oldest position that retention has left. Until it comes to a commit, the ids stay as well: what
   *   was stored together is removed together. Holes of a few pages, all over the file, are what makes LMDB slow.
   */
  put({ runs, ids }: Commit, held: Position): void {
    if (this.window.ids === 0) return;
    void this.db.put(positionKey(runs[0].first), record(runs[0].storedAt, ids));
    if (++this.commits % FORGET_EVERY === 0) this.forget(Math.min(held, this.recent.oldest));
  }

  /** Removes a few records of which no id is needed any more. */
  private forget(oldest: Position): void {
    let previous: Buffer | undefined;
    // A record ends where the next one begins.
    for (const key of this.db.getKeys({ limit: 2 * FORGET_EVERY })) {
      if (readPositionKey(key) > oldest) break;
      if (previous) void this.db.remove(previous);
      previous = key;
    }
  }
}

/** The time of a commit, then the id hashes of its events, in order of position. */
function record(storedAt: number, ids: readonly Uint32Array[]): Buffer {
  const bytes = Buffer.allocUnsafe(8 + ids.reduce((sum, part) => sum + part.byteLength, 0));
  bytes.writeDoubleLE(storedAt, 0);
  let at = 8;
  for (const part of ids)
    at += Buffer.from(part.buffer, part.byteOffset, part.byteLength).copy(bytes, at);
  return bytes;
}

function readRecord(bytes: Buffer): { storedAt: number; ids: Uint32Array } {
  const ids = new Uint32Array((bytes.length - 8) / 4);
  bytes.copy(Buffer.from(ids.buffer), 0, 8);
  return { storedAt: bytes.readDoubleLE(0), ids };
}
