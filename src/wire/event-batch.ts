import type { Position } from './cursor.js';
import { FRAME_HEADER_BYTES, frameLength, type Frames } from './frames.js';
import { concatenate } from './slab.js';

/** Events of one topic as they are stored and sent: framed, each with its cursor. */
export interface EventBatch extends Frames {
  /** The position of the last one: a watch that sent this batch stands there. */
  readonly last: Position;
}

/** Events of one topic are stored in pieces of up to so many bytes, or of one event where that is larger. */
export const RUN_BYTES = 32 * 1024;

/** A stored batch whose events have consecutive positions from `first` on. */
export interface Run extends EventBatch {
  readonly first: Position;
}

/** The events of a run that stand strictly after a position inside it. */
export function cutAfter(run: Run, position: Position): EventBatch {
  const skipped = position - run.first + 1;
  let at = 0;
  for (let i = 0; i < skipped; i++) at += FRAME_HEADER_BYTES + frameLength(run.bytes, at);
  return { bytes: run.bytes.subarray(at), count: run.count - skipped, last: run.last };
}

/** Makes one batch of consecutive ones of a topic. */
export function joined(parts: readonly EventBatch[]): EventBatch {
  if (parts.length === 1) return parts[0];
  return {
    bytes: concatenate(
      parts.map((part) => part.bytes),
      // Not a slab's (slab.ts): what is left of one in the tail would keep all of it once this was sent and dropped.
      Buffer.allocUnsafeSlow(parts.reduce((sum, part) => sum + part.bytes.length, 0)),
    ),
    count: parts.reduce((sum, part) => sum + part.count, 0),
    last: parts[parts.length - 1].last,
  };
}
