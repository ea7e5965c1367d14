import { VARINT, writeVarint } from './protobuf.js';

/** What a google.protobuf.Timestamp can say: the years 1 to 9999. */
export const MIN_SECONDS = -62135596800;
export const MAX_SECONDS = 253402300799;
export const MAX_NANOS = 999_999_999;

/** A time of this age, in milliseconds, as a google.protobuf.Timestamp. */
export function encodeTimestamp(milliseconds: number): Buffer {
  const encoded = Buffer.allocUnsafe(16);
  encoded[0] = (1 << 3) | VARINT;
  let end = writeVarint(encoded, 1, Math.floor(milliseconds / 1000));
  const nanos = (milliseconds % 1000) * 1e6;
  if (nanos > 0) {
    encoded[end] = (2 << 3) | VARINT;
    end = writeVarint(encoded, end + 1, nanos);
  }
  return encoded.subarray(0, end);
}
