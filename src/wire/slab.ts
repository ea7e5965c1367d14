/**
 * Small buffers of event bytes share slabs of this size. The tail of the log drops buffers in the order in which they
 * were allocated, so all buffers of a slab are dropped at about the same time. In node's own pool they would lie
 * among short-lived buffers of others, and 200 bytes could keep 64 KiB of the pool alive. Slabs are small because a
 * watch that nobody reads keeps alive every slab of which it has sent a part.
 */
const SLAB_BYTES = 8 * 1024;
/** A larger buffer gets memory of its own. */
const MAX_SHARED_BYTES = SLAB_BYTES / 8;

let slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
let used = 0;

/** Returns a buffer for events that will be stored. Its content is undefined. */
export function allocate(bytes: number): Buffer {
  if (bytes > MAX_SHARED_BYTES) return Buffer.allocUnsafeSlow(bytes);
  if (used + bytes > SLAB_BYTES) {
    slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
    used = 0;
  }
  const start = used;
  used += bytes;
  return slab.subarray(start, used);
}

/** Copies the parts one after another into `whole`, which must be as long as all of them, and returns it. */
export function concatenate(parts: readonly Buffer[], whole: Buffer): Buffer {
  let at = 0;
  for (const part of parts) at += part.copy(whole, at);
  return whole;
}
