import type { Position } from '../../wire/cursor.js';

/** The key of what a commit stored: the position of its first event; big-endian, so that they sort. */
export function positionKey(position: Position): Buffer {
  const key = Buffer.allocUnsafe(6);
  key.writeUIntBE(position, 0, 6);
  return key;
}

/** The time of a commit, then the id hashes of its events, in order of position. */
export function idsRecord(storedAt: number, ids: readonly Uint32Array[]): Buffer {
  const record = Buffer.allocUnsafe(8 + ids.reduce((sum, part) => sum + part.byteLength, 0));
  record.writeDoubleLE(storedAt, 0);
  let at = 8;
  for (const part of ids) {
    at += Buffer.from(part.buffer, part.byteOffset, part.byteLength).copy(record, at);
  }
  return record;
}

export function readIdsRecord(record: Buffer): { storedAt: number; ids: Uint32Array } {
  const ids = new Uint32Array((record.length - 8) / 4);
  record.copy(Buffer.from(ids.buffer), 0, 8);
  return { storedAt: record.readDoubleLE(0), ids };
}
