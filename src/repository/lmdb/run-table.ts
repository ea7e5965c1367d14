import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import { cutAfter, type EventBatch } from '../../wire/event-batch.js';
import type { StoredRun } from '../append-queue.js';
import { joined } from '../tail.js';
import { DamageError } from './damage.js';
import {
  afterTopicKey,
  pieceKey,
  readRunKey,
  readTopic,
  runKey,
  type RunKey,
  startKey,
} from './run-key.js';

/**
 * What LMDB has room for on one page. Of values that need several pages side by side, of many sizes, the removed ones
 * leave holes that fit no other, ever more of them, and LMDB goes through all holes with each commit
 * (docs/performance.md, "Retention"): a hole of one page fits all.
 */
export const PAGE_VALUE_BYTES = 4_072;

/** Each run of events as a record: what is known of it in the key, its bytes the value, the rest of them in pieces. */
export class RunTable {
  /** Where each topic of the commit that is being made goes on: its records can't be read yet. */
  private readonly ends = new Map<string, { ordinal: number; offset: number }>();

  constructor(
    private readonly db: Database<Buffer, Buffer>,
    /** What of a run's bytes is not with its record: not in a log of an earlier version. */
    private readonly pieces: Database<Buffer, Buffer>,
  ) {}

  /** To be called within one batch. */
  put(runs: readonly StoredRun[]): void {
    this.ends.clear();
    for (const run of runs) {
      const { topic, first, count, bytes } = run;
      const { ordinal, offset } = this.ends.get(topic) ?? this.endOf(topic);
      this.ends.set(topic, { ordinal: ordinal + count, offset: offset + bytes.length });
      const [head, ...rest] = piecesOf(bytes);
      void this.db.put(runKey(run, ordinal, offset), head);
      for (const [i, piece] of rest.entries()) void this.pieces.put(pieceKey(first, i), piece);
    }
  }

  /** The keys of a topic's runs that start up to a position, the oldest first. */
  oldestKeys(topic: string, upTo: Position): Iterable<Buffer> {
    return this.db.getKeys({ start: startKey(topic, 0), end: startKey(topic, upTo + 1) });
  }

  /** The next topic that holds something, in the order of their bytes; the first one after undefined. */
  topicAfter(topic: string | undefined): string | undefined {
    const start = topic === undefined ? undefined : afterTopicKey(topic);
    for (const key of this.db.getKeys({ start, limit: 1 })) return readTopic(key);
    return undefined;
  }

  /** Runs in the order of their keys, from the first or after one; each value is good until the next is asked for. */
  *after(
    start: Buffer | undefined,
    limit: number,
  ): Iterable<{ key: Buffer; run: RunKey; value: Buffer; pieceCount: number }> {
    const range = { start, exclusiveStart: start !== undefined, limit };
    for (const { key, value } of this.db.getRange(range)) {
      const run = readRunKey(key);
      const pieceCount = Math.ceil((run.size - value.length) / PAGE_VALUE_BYTES);
      yield { key, run, value: this.whole(run, value), pieceCount };
    }
  }

  /** How many pieces there are of all runs. */
  get pieceCount(): number {
    return (this.pieces.getStats() as { entryCount: number }).entryCount;
  }

  /** The bytes of a run that is there; good until the next are asked for. */
  bytesOf(key: Buffer): Buffer {
    return this.whole(readRunKey(key), this.db.getBinaryFast(key)!);
  }

  /** To be called within a batch. */
  remove(key: Buffer): void {
    void this.db.remove(key);
    const { first, size } = readRunKey(key);
    for (let i = 0; (i + 1) * PAGE_VALUE_BYTES < size; i++)
      void this.pieces.remove(pieceKey(first, i));
  }

  /** Events after a position and up to the head: what leaves here is a copy. */
  read(topic: string, after: Position, head: Position, maxBytes: number): EventBatch | undefined {
    const parts: EventBatch[] = [];
    let bytes = 0;
    const holding = this.newest(topic, after);
    if (holding && holding.last > after) {
      const { first, last, count } = holding;
      for (const { value } of this.db.getRange({ start: startKey(topic, first), limit: 1 })) {
        const run = { first, last, count, bytes: this.whole(holding, value) };
        parts.push(cutAfter(run, after));
        bytes = parts[0].bytes.length;
      }
      if (bytes >= maxBytes) return joined(parts);
    }
    const range = { start: startKey(topic, after + 1), end: startKey(topic, head + 1) };
    for (const { key, value } of this.db.getRange(range)) {
      const run = readRunKey(key);
      if (parts.length > 0 && bytes + run.size > maxBytes) break;
      parts.push({ bytes: this.whole(run, value), count: run.count, last: run.last });
      bytes += run.size;
    }
    return parts.length === 0 ? undefined : joined(parts);
  }

  /** The newest run of a topic that starts at or before a position. */
  newest(topic: string, position: Position = MAX_START): RunKey | undefined {
    const range = {
      start: startKey(topic, position + 1),
      end: startKey(topic, 0),
      reverse: true,
      limit: 1,
    };
    for (const key of this.db.getKeys(range)) return readRunKey(key);
    return undefined;
  }

  /** The oldest run of a topic that starts at or after a position. */
  oldest(topic: string, position: Position = 0): RunKey | undefined {
    const range = { start: startKey(topic, position), end: startKey(topic, MAX_START), limit: 1 };
    for (const key of this.db.getKeys(range)) return readRunKey(key);
    return undefined;
  }

  /** The oldest run of a topic, up to a position, for which something holds that from some run on holds for all. */
  first(topic: string, upTo: Position, holds: (run: RunKey) => boolean): RunKey | undefined {
    let found: RunKey | undefined;
    let low = 0;
    let high = upTo;
    while (low <= high) {
      const middle = Math.floor((low + high) / 2);
      const run = this.oldest(topic, middle);
      if (run && run.first <= upTo && !holds(run)) {
        low = run.last + 1;
      } else {
        if (run && run.first <= upTo) found = run;
        high = middle - 1;
      }
    }
    return found;
  }

  /** All bytes of a run, of which a record has some. */
  private whole({ first, size }: RunKey, head: Buffer): Buffer {
    if (head.length === size) return head;
    const bytes = Buffer.allocUnsafeSlow(size); // of node's pool, a watch that nobody reads would keep 64 KiB
    let at = head.copy(bytes, 0, 0, head.length);
    for (let i = 0; at < size; i++) {
      const piece = this.pieces.getBinaryFast(pieceKey(first, i));
      if (!piece) throw new DamageError(`a piece of the events at position ${first} is missing`);
      // LMDB reads into one buffer for all: it is longer than what it says.
      at += piece.copy(bytes, at, 0, piece.length);
    }
    return bytes;
  }

  private endOf(topic: string): { ordinal: number; offset: number } {
    const newest = this.newest(topic);
    return newest
      ? { ordinal: newest.ordinal + newest.count, offset: newest.offset + newest.size }
      : { ordinal: 0, offset: 0 };
  }
}

function piecesOf(bytes: Buffer): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += PAGE_VALUE_BYTES)
    pieces.push(bytes.subarray(at, at + PAGE_VALUE_BYTES));
  return pieces;
}

/** Beyond every position. */
const MAX_START = 2 ** 48 - 2;
