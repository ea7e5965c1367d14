import type { Position } from '../wire/cursor.js';
import type { Run } from '../wire/event-batch.js';

/** The unit of storage: consecutive events of one topic from one commit, framed as they are sent. */
export interface StoredRun extends Run {
  readonly topic: string;
  /** The log's time of its commit, in milliseconds; never before that of an earlier run. */
  readonly storedAt: number;
}

/** All that is known of a stored run but its topic and its bytes. */
export interface HeldRun {
  readonly first: Position;
  readonly last: Position;
  readonly count: number;
  readonly storedAt: number;
  /** The size of its framed events, in bytes. */
  readonly size: number;
  /** How many events, and how many bytes of them, its topic had stored before this run. */
  readonly ordinal: number;
  readonly offset: number;
}

/** Returns the total size of the runs' framed events, in bytes. */
export function bytesOf(runs: readonly StoredRun[]): number {
  return runs.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

/** @param before the topic's newest run until now; undefined if nothing of it is held, and then it is counted from 0 */
export function heldRun(
  { first, last, count, storedAt, bytes }: StoredRun,
  before: HeldRun | undefined,
): HeldRun {
  const ordinal = before ? before.ordinal + before.count : 0;
  const offset = before ? before.offset + before.size : 0;
  return { first, last, count, storedAt, size: bytes.length, ordinal, offset };
}

/** Returns a topic's oldest run, up to a position, that meets a condition which all newer ones then meet as well. */
export function firstWhere(
  runs: { oldest(topic: string, from: Position): HeldRun | undefined },
  topic: string,
  upTo: Position,
  condition: (run: HeldRun) => boolean,
): HeldRun | undefined {
  let found: HeldRun | undefined;
  let low = 0;
  let high = upTo;
  while (low <= high) {
    const middle = Math.floor((low + high) / 2);
    const run = runs.oldest(topic, middle);
    const isBelow = run !== undefined && run.first <= upTo;
    if (isBelow && !condition(run)) {
      low = run.last + 1;
    } else {
      if (isBelow) found = run;
      high = middle - 1;
    }
  }
  return found;
}
