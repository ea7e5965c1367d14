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
  /** Up to where records were looked at, beyond the oldest that stay. */
  private lookedAt: Buffer | undefined;

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
    for (const { first, storedAt, ids } of records.toReversed()) {
      for (let i = 0; i < ids.length; i += 2) {
        if (ids[i] !== 0 || ids[i + 1] !== 0)
          this.recent.add(ids[i], ids[i + 1], first + i / 2, storedAt);
      }
    }
  }

  /**
   * To be called within a batch.
   *
   * @param mayHold whether events may be held of the commit that began at a position. While they are, its ids stay as
   *   well: what was stored together is removed together. Holes of a few pages, all over the file, are what makes LMDB
   *   slow.
   */
  put({ runs, ids }: Commit, mayHold: (commit: Position) => boolean): void {
    if (this.window.ids === 0) return;
    void this.db.put(positionKey(runs[0].first), record(runs[0].storedAt, ids));
    if (++this.commits % FORGET_EVERY === 0) this.forget(mayHold, runs[0].storedAt);
  }

  /** Removes a few records of which no id is needed any more. */
  private forget(mayHold: (commit: Position) => boolean, now: number): void {
    const oldest = this.recent.oldest(now);
    const atMost = 2 * FORGET_EVERY;
    const isOver = (key: Buffer): boolean => !mayHold(readPositionKey(key));
    // A record ends where the next one begins.
    let previous: Buffer | undefined;
    for (const key of this.db.getKeys({ limit: atMost })) {
      if (readPositionKey(key) > oldest || (previous && !isOver(previous))) break;
      if (previous) void this.db.remove(previous);
      previous = key;
    }
    // The oldest may stay for ever, where topics have limits of their own: so some others, round and round.
    const keys = [...this.db.getKeys({ start: this.lookedAt ?? previous, limit: atMost })];
    const next = keys.findIndex((key) => readPositionKey(key) > oldest);
    const end = next < 0 ? keys.length : next;
    for (let i = 1; i < end; i++) if (isOver(keys[i - 1])) void this.db.remove(keys[i - 1]);
    this.lookedAt = end < atMost ? undefined : keys[end - 1];
  }
}

/** Those that are remembered: not of events without an id of their own. */
function idCount(ids: Uint32Array): number {
  let count = 0;
  for (let i = 0; i < ids.length; i += 2) if (ids[i] !== 0 || ids[i + 1] !== 0) count++;
  return count;
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
