import { isUtf8 } from 'node:buffer';

/**
 * A text of up to this length is first searched for bytes that are not ASCII. That costs less than a call of isUtf8(),
 * and most short texts have none.
 */
const LOOP_BYTES = 64;

/** True if buffer[start, end) is valid UTF-8. */
export function isValidUtf8(buffer: Buffer, start: number, end: number): boolean {
  if (end - start <= LOOP_BYTES) {
    let i = start;
    while (i < end && buffer[i] < 0x80) i++;
    if (i === end) return true;
  }
  return isUtf8(buffer.subarray(start, end));
}
