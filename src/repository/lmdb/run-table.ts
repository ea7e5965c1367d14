import type { Database } from 'lmdb';
import { MAX_POSITION, type Position } from '../../wire/cursor.js';
import { cutAfter, type EventBatch, joined, type Run } from '../../wire/event-batch.js';
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
 * The largest value that LMDB stores on one page. A larger value takes adjacent pages, and leaves a hole of as many
 * when it is removed. Holes of many sizes stay unused and make each commit slower (docs/performance.md, "Retention").
 * Holes of one page never do, because every value fits in them.
 */
export const PAGE_VALUE_BYTES = 4_072;

/**
 * Stores runs in two LMDB databases. The record of a run has all of its HeldRun in the key, and the first
 * PAGE_VALUE_BYTES of its events as the value. Pieces of the same size hold the rest. A run of 10,000 bytes that starts
 * at position 7 takes:
 *
 *     db      runKey("orders", run)   bytes 0-4071
 *     pieces  pieceKey(7, 0)          bytes 4072-8143
 *     pieces  pieceKey(7, 1)          bytes 8144-9999
 *
 * In a log of format 1, the records of older runs hold all bytes, and there are no pieces of them.
 */
export class RunTable implements RunIndex {
  /** The newest run that the current put() has written, by topic: LMDB does not find its record before the commit. */
  private readonly newestPut = new Map<string, HeldRun>();

  constructor(
    private readonly db: Database<Buffer, Buffer>,
    private readonly pieces: Database<Buffer, Buffer>,
  ) {}

  /** Stores the runs of one commit. Call within its batch. Returns how many of their topics held nothing before. */
  put(runs: readonly StoredRun[]): number {
    let newTopics = 0;
    this.newestPut.clear();
    for (const run of runs) {
      const { topic, first, bytes } = run;
      const before = this.newestPut.get(topic) ?? this.newest(topic, MAX_POSITION);
      if (!before) newTopics++;
      const held = heldRun(run, before);
      this.newestPut.set(topic, held);
      const [head, ...rest] = piecesOf(bytes);
      void this.db.put(runKey(topic, held), head);
      for (const [i, piece] of rest.entries()) void this.pieces.put(pieceKey(first, i), piece);
    }
    return newTopics;
  }

  /** Counts the topics that hold something: a search for each. */
  countTopics(): number {
    let count = 0;
    for (const _ of this.topics(undefined)) count++;
    return count;
  }

  *upTo(topic: string, position: Position): Iterable<HeldRun> {
    for (const key of this.db.getKeys({
      start: startKey(topic, 0),
      end: afterRunKey(topic, position),
    }))
      yield readRunKey(key);
  }

  /** Each topic costs one search, however many runs it has. */
  *topics(after: string | undefined, prefix = ''): Iterable<string> {
    let start: Buffer = Buffer.from(prefix);
    const next = after === undefined ? start : afterTopicKey(after);
    if (next.compare(start) > 0) start = next;
    for (;;) {
      const topic = this.topicFrom(start);
      if (!topic?.startsWith(prefix)) return;
      yield topic;
      start = afterTopicKey(topic);
    }
  }

  /**
   * Yields up to `limit` runs of all topics in the order of their keys, from the first one or from the one after `start`.
   * The next read of the log may overwrite `bytes`.
   */
  *after(
    start: Buffer | undefined,
    limit: number,
  ): Iterable<{ key: Buffer; run: HeldRun; bytes: Buffer; pieceCount: number }> {
    const range = { start, exclusiveStart: start !== undefined, limit };
    for (const { key, value } of this.db.getRange(range)) {
      const run = readRunKey(key);
      const pieceCount = Math.ceil((run.size - value.length) / PAGE_VALUE_BYTES);
      yield { key, run, bytes: this.wholeRun(run, value), pieceCount };
    }
  }

  /** The number of pieces of all runs. */
  get pieceCount(): number {
    return (this.pieces.getStats() as { entryCount: number }).entryCount;
  }

  /** Returns the bytes of a run that is held. The next read of the log may overwrite them. */
  bytesOf(topic: string, run: HeldRun): Buffer {
    return this.wholeRun(run, this.db.getBinaryFast(runKey(topic, run))!);
  }

  /** Call within a batch. */
  remove(topic: string, run: HeldRun): void {
    const { first, size } = run;
    void this.db.remove(runKey(topic, run));
    for (let i = 0; (i + 1) * PAGE_VALUE_BYTES < size; i++)
      void this.pieces.remove(pieceKey(first, i));
  }

  /** The batch is a copy: no view of LMDB's memory leaves this method. */
  read(topic: string, after: Position, upTo: Position, maxBytes: number): EventBatch | undefined {
    const parts: EventBatch[] = [];
    let bytes = 0;
    // The position `after` may lie within a run, whose later events come first.
    const cut = this.newest(topic, after);
    if (cut && cut.last > after) {
      for (const { value } of this.db.getRange({ start: startKey(topic, cut.first), limit: 1 })) {
        parts.push(cutAfter({ ...cut, bytes: this.wholeRun(cut, value) }, after));
        bytes = parts[0].bytes.length;
      }
      if (bytes >= maxBytes) return joined(parts);
    }
    const range = { start: startKey(topic, after + 1), end: afterRunKey(topic, upTo) };
    for (const { key, value } of this.db.getRange(range)) {
      const run = readRunKey(key);
      if (parts.length > 0 && bytes + run.size > maxBytes) break;
      parts.push({ bytes: this.wholeRun(run, value), count: run.count, last: run.last });
      bytes += run.size;
    }
    return parts.length === 0 ? undefined : joined(parts);
  }

  at(topic: string, first: Position): Run | undefined {
    const range = { start: startKey(topic, first), end: afterRunKey(topic, first), limit: 1 };
    for (const { key, value } of this.db.getRange(range)) {
      const run = readRunKey(key);
      return { first, last: run.last, count: run.count, bytes: this.wholeRun(run, value) };
    }
    return undefined;
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

  /** Returns all bytes of a run. Those in its record are `head`; if that is all, it returns `head` itself. */
  private wholeRun({ first, size }: HeldRun, head: Buffer): Buffer {
    if (head.length === size) return head;
    // Not from node's pool: a watch that nobody reads would keep 64 KiB of the pool alive.
    const bytes = Buffer.allocUnsafeSlow(size);
    let at = head.copy(bytes, 0, 0, head.length);
    for (let i = 0; at < size; i++) {
      const piece = this.pieces.getBinaryFast(pieceKey(first, i));
      if (!piece) throw new DamageError(`a piece of the events at position ${first} is missing`);
      // getBinaryFast() returns lmdb-js's own buffer, with another `length`. Without an end, copy() would copy too much.
      at += piece.copy(bytes, at, 0, piece.length);
    }
    return bytes;
  }

  /** @param start a key; empty for the first topic of all */
  private topicFrom(start: Buffer): string | undefined {
    const range = { start: start.length > 0 ? start : undefined, limit: 1 };
    for (const key of this.db.getKeys(range)) return readTopic(key);
    return undefined;
  }
}

function piecesOf(bytes: Buffer): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += PAGE_VALUE_BYTES)
    pieces.push(bytes.subarray(at, at + PAGE_VALUE_BYTES));
  return pieces;
}
