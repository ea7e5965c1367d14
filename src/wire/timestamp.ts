import { VARINT, writeVarint } from './protobuf.js';
import type { Time } from './watch-request.js';

/** The range of a google.protobuf.Timestamp: the years 1 to 9999, in seconds since 1970. */
export const MIN_SECONDS = -62135596800;
export const MAX_SECONDS = 253402300799;
export const MAX_NANOS = 999_999_999;

const SECONDS_TAG = (1 << 3) | VARINT;
const NANOS_TAG = (2 << 3) | VARINT;

/**
 * Encodes a time since 1970, in milliseconds, as a google.protobuf.Timestamp. 1500 becomes 08 01 10 80 ca b5 ee 01.
 */
export function encodeTimestamp(milliseconds: number): Buffer {
  const encoded = Buffer.allocUnsafe(16);
  encoded[0] = SECONDS_TAG;
  let end = writeVarint(encoded, 1, Math.floor(milliseconds / 1000));
  const nanos = (milliseconds % 1000) * 1e6;
  if (nanos > 0) {
    encoded[end] = NANOS_TAG;
    end = writeVarint(encoded, end + 1, nanos);
  }
  return encoded.subarray(0, end);
}

/** Encodes a google.protobuf.Timestamp, also one before 1970. */
export function encodeTime({ seconds, nanos }: Time): Buffer {
  const encoded = Buffer.allocUnsafe(1 + 10 + 1 + 5);
  let end = 0;
  if (seconds !== 0) {
    encoded[end++] = SECONDS_TAG;
    end = seconds > 0 ? writeVarint(encoded, end, seconds) : writeNegative(encoded, end, seconds);
  }
  if (nanos > 0) {
    encoded[end++] = NANOS_TAG;
    end = writeVarint(encoded, end, nanos);
  }
  return encoded.subarray(0, end);
}

/** Writes a negative int64 as a varint, which always takes 10 bytes. */
function writeNegative(target: Buffer, offset: number, value: number): number {
  let left = BigInt.asUintN(64, BigInt(value));
  for (; left >= 0x80n; left >>= 7n) target[offset++] = Number(left & 0x7fn) | 0x80;
  target[offset++] = Number(left);
  return offset;
}
