import type { Database } from 'lmdb';
import { MAX_POSITION, type Position } from '../../wire/cursor.js';
import type { HeldRun } from '../stored-run.js';

// The key of a run: topic, 0, first (6 bytes), count (4), storedAt (6), size (4), ordinal (6), offset (6). Numbers are
// big-endian, so that a topic's runs sort by position. No topic contains a 0. For the run of topic "a" with the
// positions 7 and 8, stored at 1764237704123, of 300 bytes, after 5 events of 750 bytes:
//
//     61 00 000000000007 00000002 019ac4c2fbbb 0000012c 000000000005 0000000002ee
const FIXED_BYTES = 1 + 6 + 4 + 6 + 4 + 6 + 6;

const KEYS_AT_ONCE = 1_000;

export function runKey(topic: string, run: HeldRun): Buffer {
  const key = startKey(topic, run.first);
  const at = key.length - 26;
  key.writeUInt32BE(run.count, at);
  key.writeUIntBE(run.storedAt, at + 4, 6);
  key.writeUInt32BE(run.size, at + 10);
  key.writeUIntBE(run.ordinal, at + 14, 6);
  key.writeUIntBE(run.offset, at + 20, 6);
  return key;
}

/** Returns a key that sorts before the topic's runs that start at or after a position, and after its other runs. */
export function startKey(topic: string, first: Position): Buffer {
  const topicBytes = Buffer.byteLength(topic);
  const key = Buffer.alloc(topicBytes + FIXED_BYTES);
  key.write(topic, 'utf8');
  key.writeUIntBE(first, topicBytes + 1, 6);
  return key;
}

/** Returns a key that sorts after the topic's runs, and before those of the next topic. */
export function afterTopicKey(topic: string): Buffer {
  return Buffer.from(`${topic}\u0001`);
}

/** Returns a key that sorts after the topic's runs that start at or before a position, and before its other runs. */
export function afterRunKey(topic: string, position: Position): Buffer {
  return position < MAX_POSITION ? startKey(topic, position + 1) : afterTopicKey(topic);
}

export function readTopic(key: Buffer): string {
  return key.toString('utf8', 0, key.length - FIXED_BYTES);
}

export function readRunKey(key: Buffer): HeldRun {
  const at = key.length - FIXED_BYTES + 1;
  const first = key.readUIntBE(at, 6);
  const count = key.readUInt32BE(at + 6);
  return {
    first,
    last: first + count - 1,
    count,
    storedAt: key.readUIntBE(at + 10, 6),
    size: key.readUInt32BE(at + 16),
    ordinal: key.readUIntBE(at + 20, 6),
    offset: key.readUIntBE(at + 26, 6),
  };
}

/** Returns the key of a piece (run-table.ts) of the run that starts at `first`. Pieces are counted from 0. */
export function pieceKey(first: Position, piece: number): Buffer {
  const key = Buffer.allocUnsafe(8);
  key.writeUIntBE(first, 0, 6);
  key.writeUInt16BE(piece, 6);
  return key;
}

/** Returns a position as a key. Such keys sort as the positions do. */
export function positionKey(position: Position): Buffer {
  const key = Buffer.allocUnsafe(6);
  key.writeUIntBE(position, 0, 6);
  return key;
}

export function readPositionKey(key: Buffer): Position {
  return key.readUIntBE(0, 6);
}

/** Yields all keys of a table. It may be read slowly: it holds no cursor of LMDB from one key to the next. */
export function* pagedKeys(table: Database<unknown, Buffer>): Iterable<Buffer> {
  for (let start: Buffer | undefined; ;) {
    const range = { start, exclusiveStart: start !== undefined, limit: KEYS_AT_ONCE };
    const keys = [...table.getKeys(range)];
    yield* keys;
    if (keys.length < KEYS_AT_ONCE) return;
    start = keys[keys.length - 1];
  }
}
