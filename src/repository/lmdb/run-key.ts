import { MAX_POSITION, type Position } from '../../wire/cursor.js';
import type { HeldRun } from '../stored-run.js';

// topic, 0, first (6 bytes), count (4), storedAt (6), size (4), ordinal (6), offset (6); big-endian, so that a
// topic's runs sort by position. No topic has a 0 in it.
const FIXED_BYTES = 1 + 6 + 4 + 6 + 4 + 6 + 6;

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

/** Sorts before every run of the topic that starts at or after a position, and after all others. */
export function startKey(topic: string, first: Position): Buffer {
  const topicBytes = Buffer.byteLength(topic);
  const key = Buffer.alloc(topicBytes + FIXED_BYTES);
  key.write(topic, 'utf8');
  key.writeUIntBE(first, topicBytes + 1, 6);
  return key;
}

/** Sorts after every run of the topic, and before those of the next. */
export function afterTopicKey(topic: string): Buffer {
  return Buffer.from(`${topic}\u0001`);
}

/** Sorts after every run of the topic that starts at or before a position, and before all others. */
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

/** The key of what is not with the record of the run that starts at a position: its pieces, counted from 0. */
export function pieceKey(first: Position, piece: number): Buffer {
  const key = Buffer.allocUnsafe(8);
  key.writeUIntBE(first, 0, 6);
  key.writeUInt16BE(piece, 6);
  return key;
}

/** The key of what belongs to a commit: the position of its first event; big-endian, so that they sort. */
export function positionKey(position: Position): Buffer {
  const key = Buffer.allocUnsafe(6);
  key.writeUIntBE(position, 0, 6);
  return key;
}

export function readPositionKey(key: Buffer): Position {
  return key.readUIntBE(0, 6);
}
