import type { Database } from 'lmdb';
import { MAX_POSITION, type Position } from '../../wire/cursor.js';
import { cutAfter, type EventBatch, joined } from '../../wire/event-batch.js';
import type { RunIndex } from '../engine.js';
import { type HeldRun, heldRun, type StoredRun } from '../stored-run.js';
import { DamageError } from './damage.js';
import {
  afterRunKey,
  afterTopicKey,
  pieceKey,
  readRunKey,
  readTopic,
  runKey,
  startKey,
} from './run-key.js';

/**
 * What LMDB has room for on one page. Of values that need several pages side by side, of many sizes, the removed ones
 * leave holes that fit no other, ever more of them, and LMDB goes through all holes with each commit
 * (docs/performance.md, "Retention"): a hole of one page fits all.
 */
export const PAGE_VALUE_BYTES = 4_072;

/** Each run of events as a record: what is known of it in the key, its bytes the value, the rest of them in pieces. */
export class RunTable implements RunIndex {
  /** The newest run of each topic in the commit that is being made: its records can't be read yet. */
  private readonly newestPut = new Map<string, HeldRun>();

  constructor(
    private readonly db: Database<Buffer, Buffer>,
    /** What of a run's bytes is not with its record: not in a log of an earlier version. */
    private readonly pieces: Database<Buffer, Buffer>,
  ) {}

  /** Call within one batch. */
  put(runs: readonly StoredRun[]): void {
    this.newestPut.clear();
    for (const run of runs) {
      const { topic, first, bytes } = run;
      const held = heldRun(run, this.newestPut.get(topic) ?? this.newest(topic, MAX_POSITION));
      this.newestPut.set(topic, held);
      const [head, ...rest] = piecesOf(bytes);
      void this.db.put(runKey(topic, held), head);
      for (const [i, piece] of rest.entries()) void this.pieces.put(pieceKey(first, i), piece);
    }
  }

  *upTo(topic: string, position: Position): Iterable<HeldRun> {
    for (const key of this.db.getKeys({
      start: startKey(topic, 0),
      end: afterRunKey(topic, position),
    }))
      yield readRunKey(key);
  }

  *topics(after: string | undefined): Iterable<string> {
    for (let topic = this.topicAfter(after); topic !== undefined; topic = this.topicAfter(topic))
      yield topic;
  }

  /** Runs in the order of their keys, from the first or after one; each value is good until the next is asked for. */
  *after(
    start: Buffer | undefined,
    limit: number,
  ): Iterable<{ key: Buffer; run: HeldRun; value: Buffer; pieceCount: number }> {
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

  /** Returns the bytes of a run that is held; good until the next call. */
  bytesOf(topic: string, run: HeldRun): Buffer {
    return this.whole(run, this.db.getBinaryFast(runKey(topic, run))!);
  }

  /** Call within a batch. */
  remove(topic: string, run: HeldRun): void {
    const { first, size } = run;
    void this.db.remove(runKey(topic, run));
    for (let i = 0; (i + 1) * PAGE_VALUE_BYTES < size; i++)
      void this.pieces.remove(pieceKey(first, i));
  }

  /** What leaves here is a copy. */
  read(topic: string, after: Position, upTo: Position, maxBytes: number): EventBatch | undefined {
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
    const range = { start: startKey(topic, after + 1), end: afterRunKey(topic, upTo) };
    for (const { key, value } of this.db.getRange(range)) {
      const run = readRunKey(key);
      if (parts.length > 0 && bytes + run.size > maxBytes) break;
      parts.push({ bytes: this.whole(run, value), count: run.count, last: run.last });
      bytes += run.size;
    }
    return parts.length === 0 ? undefined : joined(parts);
  }

  newest(topic: string, upTo: Position): HeldRun | undefined {
    const range = {
      start: afterRunKey(topic, upTo),
      end: startKey(topic, 0),
      reverse: true,
      limit: 1,
    };
    for (const key of this.db.getKeys(range)) return readRunKey(key);
    return undefined;
  }

  oldest(topic: string, from: Position): HeldRun | undefined {
    const range = { start: startKey(topic, from), end: afterTopicKey(topic), limit: 1 };
    for (const key of this.db.getKeys(range)) return readRunKey(key);
    return undefined;
  }

  /** All bytes of a run, of which a record has some. */
  private whole({ first, size }: HeldRun, head: Buffer): Buffer {
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

  private topicAfter(topic: string | undefined): string | undefined {
    const start = topic === undefined ? undefined : afterTopicKey(topic);
    for (const key of this.db.getKeys({ start, limit: 1 })) return readTopic(key);
    return undefined;
  }
}

function piecesOf(bytes: Buffer): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += PAGE_VALUE_BYTES)
    pieces.push(bytes.subarray(at, at + PAGE_VALUE_BYTES));
  return pieces;
}
