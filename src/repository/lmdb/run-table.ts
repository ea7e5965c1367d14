import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import { cutAfter, type EventBatch } from '../../wire/event-batch.js';
import type { StoredRun } from '../append-queue.js';
import { joined } from '../tail.js';
import { afterTopicKey, readRunKey, readTopic, runKey, type RunKey, startKey } from './run-key.js';

/** Each run of events as a record: what is known of it in the key, its bytes the value. */
export class RunTable {
  /** Where each topic of the commit that is being made goes on: its records can't be read yet. */
  private readonly ends = new Map<string, { ordinal: number; offset: number }>();

  constructor(private readonly db: Database<Buffer, Buffer>) {}

  /** To be called within one batch. */
  put(runs: readonly StoredRun[]): void {
    this.ends.clear();
    for (const run of runs) {
      const { ordinal, offset } = this.ends.get(run.topic) ?? this.endOf(run.topic);
      this.ends.set(run.topic, { ordinal: ordinal + run.count, offset: offset + run.bytes.length });
      void this.db.put(runKey(run, ordinal, offset), run.bytes);
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

  /** The bytes of runs that are there; each is good until the next is asked for, because it is not copied. */
  *bytesOf(keys: readonly Buffer[]): Iterable<Buffer> {
    for (const key of keys) yield this.db.getBinaryFast(key)!;
  }

  /** To be called within a batch. */
  remove(key: Buffer): void {
    void this.db.remove(key);
  }

  /** Events after a position and up to the head: what leaves here is a copy. */
  read(topic: string, after: Position, head: Position, maxBytes: number): EventBatch | undefined {
    const parts: EventBatch[] = [];
    let bytes = 0;
    const holding = this.newest(topic, after);
    if (holding && holding.last > after) {
      const { first, last, count } = holding;
      for (const { value } of this.db.getRange({ start: startKey(topic, first), limit: 1 })) {
        parts.push(cutAfter({ first, last, count, bytes: value }, after));
        bytes = parts[0].bytes.length;
      }
      if (bytes >= maxBytes) return joined(parts);
    }
    const range = { start: startKey(topic, after + 1), end: startKey(topic, head + 1) };
    for (const { key, value } of this.db.getRange(range)) {
      if (parts.length > 0 && bytes + value.length > maxBytes) break;
      const { last, count } = readRunKey(key);
      parts.push({ bytes: value, count, last });
      bytes += value.length;
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

  private endOf(topic: string): { ordinal: number; offset: number } {
    const newest = this.newest(topic);
    return newest
      ? { ordinal: newest.ordinal + newest.count, offset: newest.offset + newest.size }
      : { ordinal: 0, offset: 0 };
  }
}

/** Beyond every position. */
const MAX_START = 2 ** 48 - 2;
