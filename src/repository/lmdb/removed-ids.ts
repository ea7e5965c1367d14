import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import { framedId, framedIds } from '../framed-ids.js';
import { type DedupHorizon, isRemembered } from '../recent-ids.js';
import type { HeldRun } from '../stored-run.js';
import type { PositionSum } from './position-sum.js';
import { pagedKeys, positionKey, readPositionKey } from './run-key.js';

// A record has the ids of one removed run. Records of earlier versions have several runs of a topic.
// Key: topic, 0, first position (6 bytes), last position (6) and storedAt (6) of the newest run.
// Value: the number of runs (1 byte), then for each its first position (6) and count (4), then all ids, framed.
// For a run with the positions 7 and 8 and the ids "x" and "y", the value is:
//
//     01  000000000007 00000002  00 00000001 "x"  00 00000001 "y"

/** The size of a key without its topic. */
const FIXED_BYTES = 1 + 6 + 6 + 6;
/** The size of what a value has of each run. */
const RUN_ENTRY_BYTES = 6 + 4;

/**
 * The ids of events that retention has removed and deduplication still remembers. If such an event is sent again,
 * its hash points to a position, and the id kept here says whether it is the same event.
 */
export class RemovedIds {
  /** The last key that forget() has looked at. */
  private lookedAt: Buffer | undefined;

  constructor(private readonly db: Database<Buffer, Buffer>) {}

  /** Yields the positions of all records. */
  *positions(): Iterable<Position> {
    for (const key of pagedKeys(this.db)) yield readKey(key).first;
  }

  /** Keeps the ids of a run. The record nearly always fits on one page (run-table.ts). Call within a batch. */
  put(topic: string, run: HeldRun, events: Buffer, sum: PositionSum): void {
    void this.db.put(keyOf(topic, run.first, run), record(run, events));
    sum.add('removedIds', run.first);
  }

  /** Looks at the next few records, round and round, and removes those before the horizon. Call within a batch. */
  forget(horizon: DedupHorizon, atMost: number, sum: PositionSum): void {
    let seen = 0;
    const range = { start: this.lookedAt, exclusiveStart: this.lookedAt !== undefined };
    for (const key of this.db.getKeys({ ...range, limit: atMost })) {
      seen++;
      this.lookedAt = key;
      const run = readKey(key);
      if (isRemembered(run, horizon)) continue;
      void this.db.remove(key);
      sum.subtract('removedIds', run.first);
    }
    if (seen < atMost) this.lookedAt = undefined;
  }

  /** Returns the id of a removed event, or undefined if it is not kept. */
  at(topic: string, position: Position): Buffer | undefined {
    const upTo = { last: 0, storedAt: 0 };
    const range = {
      start: keyOf(topic, position + 1, upTo),
      end: keyOf(topic, 0, upTo),
      reverse: true,
      limit: 1,
    };
    for (const { value } of this.db.getRange(range)) return idIn(value, position);
    return undefined;
  }
}

function record({ first, count }: HeldRun, events: Buffer): Buffer {
  const head = Buffer.allocUnsafe(1 + RUN_ENTRY_BYTES);
  head[0] = 1;
  head.writeUIntBE(first, 1, 6);
  head.writeUInt32BE(count, 7);
  return Buffer.concat([head, framedIds(events)]);
}

function idIn(value: Buffer, position: Position): Buffer | undefined {
  const ids = value.subarray(1 + value[0] * RUN_ENTRY_BYTES);
  let before = 0;
  for (let i = 0; i < value[0]; i++) {
    const first = value.readUIntBE(1 + i * RUN_ENTRY_BYTES, 6);
    const count = value.readUInt32BE(7 + i * RUN_ENTRY_BYTES);
    if (position < first) return undefined;
    if (position < first + count) return framedId(ids, before + position - first);
    before += count;
  }
  return undefined;
}

function keyOf(
  topic: string,
  first: Position,
  { last, storedAt }: Pick<HeldRun, 'last' | 'storedAt'>,
): Buffer {
  return Buffer.concat([Buffer.from(`${topic}\0`), ...[first, last, storedAt].map(positionKey)]);
}

function readKey(key: Buffer): Pick<HeldRun, 'first' | 'last' | 'storedAt'> {
  const at = key.length - FIXED_BYTES + 1;
  return {
    first: readPositionKey(key.subarray(at)),
    last: readPositionKey(key.subarray(at + 6)),
    storedAt: readPositionKey(key.subarray(at + 12)),
  };
}
