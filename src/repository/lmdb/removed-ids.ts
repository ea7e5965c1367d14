import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import { framedId, framedIds } from '../framed-ids.js';
import { type DedupHorizon, isRemembered } from '../recent-ids.js';
import type { HeldRun } from '../stored-run.js';
import { positionKey, readPositionKey } from './run-key.js';

/** All of a key but the topic: 0, the first position, the last position and the time of the newest run. */
const FIXED_BYTES = 1 + 6 + 6 + 6;
/** Of each run in a record: its first position and its count. */
const RUN_ENTRY_BYTES = 6 + 4;

/**
 * The ids of events that retention removes while they are remembered: without them, such an event sent again
 * would be stored again, because its hash alone says nothing.
 */
export class RemovedIds {
  /** Up to where records were looked at, in the order of their keys. */
  private lookedAt: Buffer | undefined;

  constructor(
    /**
     * A run of a topic, or some in a log of an earlier version: how many, where each starts and how many events it had;
     * then their ids, framed.
     */
    private readonly db: Database<Buffer, Buffer>,
  ) {}

  /** Keeps the ids of a run: a record, which nearly always fits on one page of LMDB (run-table.ts). Call within a batch. */
  put(topic: string, run: HeldRun, events: Buffer): void {
    void this.db.put(keyOf(topic, run.first, run), record(run, events));
  }

  /** Looks at a few records, round and round, and drops those beyond the horizon. Call within a batch. */
  forget(horizon: DedupHorizon, atMost: number): void {
    let seen = 0;
    const range = { start: this.lookedAt, exclusiveStart: this.lookedAt !== undefined };
    for (const key of this.db.getKeys({ ...range, limit: atMost })) {
      seen++;
      this.lookedAt = key;
      if (!isRemembered(readKey(key), horizon)) void this.db.remove(key);
    }
    if (seen < atMost) this.lookedAt = undefined;
  }

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

function readKey(key: Buffer): Pick<HeldRun, 'last' | 'storedAt'> {
  const at = key.length - FIXED_BYTES + 1;
  return {
    last: readPositionKey(key.subarray(at + 6)),
    storedAt: readPositionKey(key.subarray(at + 12)),
  };
}
