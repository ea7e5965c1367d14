/**
 * Memory for event bytes that live together: in the tail of the log they come and go in order, so small
 * ones share slabs. In node's own pool each would pin a slab full of short-lived buffers of others: 64 KiB
 * held for 200 bytes. And no larger slabs, because a watch that nobody reads holds those of what it was sent.
 */
const SLAB_BYTES = 8 * 1024;
const SHARED_BYTES = SLAB_BYTES / 8;

let slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
let used = 0;

export function allocate(bytes: number): Buffer {
  if (bytes > SHARED_BYTES) return Buffer.allocUnsafeSlow(bytes);
  if (used + bytes > SLAB_BYTES) {
    slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
    used = 0;
  }
  const start = used;
  used += bytes;
  return slab.subarray(start, used);
}

/** The parts one after another in `whole`, which is as long as they are. */
export function concatenate(parts: readonly Buffer[], whole: Buffer): Buffer {
  let at = 0;
  for (const part of parts) at += part.copy(whole, at);
  return whole;
}
