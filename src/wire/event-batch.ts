import type { Position } from './cursor.js';
import { FRAME_HEADER_BYTES, frameLength, type Frames } from './frames.js';
import { concatenate } from './slab.js';

/**
 * Events of a watch's topics, in the order of their positions, as they are stored and sent: framed, each with its cursor. A batch with
 * `count` 0 is a heartbeat, or says that a reader has looked as far as `last` and found nothing.
 */
export interface EventBatch extends Frames {
  /** A watch that has sent this batch continues after this position: that of the batch's last event. */
  readonly last: Position;
}

/** The largest size of a run, in bytes. A single event that is larger makes a run of its own. */
export const RUN_BYTES = 32 * 1024;

/**
 * The unit in which the log stores events: events of one topic that have consecutive positions. A run of 3 events
 * with the positions 7, 8 and 9 has `first` 7, `count` 3 and `last` 9.
 */
export interface Run extends EventBatch {
  readonly first: Position;
}

/**
 * Returns the events of a run that come after `position`, which is that of one of its events. The result shares the
 * run's bytes.
 */
export function cutAfter(run: Run, position: Position): EventBatch {
  const skipped = position - run.first + 1;
  let at = 0;
  for (let i = 0; i < skipped; i++) at += FRAME_HEADER_BYTES + frameLength(run.bytes, at);
  return { bytes: run.bytes.subarray(at), count: run.count - skipped, last: run.last };
}

/** Makes one batch of consecutive ones. */
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
