import { isUtf8 } from 'node:buffer';

/** Up to here a loop over the bytes is cheaper than the call into node's own check. */
const LOOP_BYTES = 64;

/** Whether buffer[start, end) is valid UTF-8. */
export function isValidUtf8(buffer: Buffer, start: number, end: number): boolean {
  if (end - start <= LOOP_BYTES) {
    let i = start;
    while (i < end && buffer[i] < 0x80) i++;
    if (i === end) return true;
  }
  return isUtf8(buffer.subarray(start, end));
}
