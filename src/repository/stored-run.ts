import type { Position } from '../wire/cursor.js';
import type { Run } from '../wire/event-batch.js';

/** The unit of storage: consecutive events of one topic from one commit, framed as they are sent. */
export interface StoredRun extends Run {
  readonly topic: string;
  /** The log's time of the run's commit, in milliseconds. No earlier run has a later time. */
  readonly storedAt: number;
}

/** Describes a stored run: everything but its topic and its bytes. */
export interface HeldRun {
  readonly first: Position;
  readonly last: Position;
  readonly count: number;
  readonly storedAt: number;
  /** The size of its framed events, in bytes. */
  readonly size: number;
  /** How many events of its topic were stored before this run, and how many bytes. Removing events changes neither. */
  readonly ordinal: number;
  readonly offset: number;
}

/** Returns the total size of the runs' framed events, in bytes. */
export function bytesOf(runs: readonly StoredRun[]): number {
  return runs.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

/** Describes a run that follows `before`, the topic's newest run held. Without one, ordinal and offset are 0. */
export function heldRun(
  { first, last, count, storedAt, bytes }: StoredRun,
  before: HeldRun | undefined,
): HeldRun {
  const ordinal = before ? before.ordinal + before.count : 0;
  const offset = before ? before.offset + before.size : 0;
  return { first, last, count, storedAt, size: bytes.length, ordinal, offset };
}

/**
 * Returns the oldest of things with a position that meets a condition and starts up to a position. It is a binary search: if one
 * meets the condition, all newer ones must, too.
 *
 * @param oldestFrom returns the oldest that starts at or after a position
 */
export function firstWhere<T extends { readonly first: Position }>(
  oldestFrom: (position: Position) => T | undefined,
  upTo: Position,
  condition: (one: T) => boolean,
): T | undefined {
  let found: T | undefined;
  let low = 0;
  let high = upTo;
  while (low <= high) {
    const middle = Math.floor((low + high) / 2);
    const one = oldestFrom(middle);
    const isBelow = one !== undefined && one.first <= upTo;
    if (isBelow && !condition(one)) {
      low = one.first + 1;
    } else {
      if (isBelow) found = one;
      high = middle - 1;
    }
  }
  return found;
}
