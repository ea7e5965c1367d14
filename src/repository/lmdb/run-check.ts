import { type Position, stampCursors } from '../../wire/cursor.js';
import { FRAME_HEADER_BYTES, frameLength } from '../../wire/frames.js';
import type { Epochs } from '../epochs.js';
import type { HeldRun } from '../stored-run.js';
import { DamageError } from './damage.js';
import { readTopic } from './run-key.js';
import type { RunTable } from './run-table.js';

/** The number of runs that are read between two yields. */
const RUNS_AT_ONCE = 64;

/**
 * Reads all events of a log whose trees are whole, and throws a DamageError where they contradict what the log says
 * elsewhere: counts, positions, sizes and cursors. TreeCheck can't find that, because a page of an older copy can look
 * valid in its place, and half a page can be old.
 *
 * It yields the share of the bytes that it has read, from 0 to 1.
 */
export function* checkRuns(
  runs: RunTable,
  epochs: Epochs,
  head: { readonly position: Position; readonly bytes: number },
  floorOf: (topic: string) => Position,
): Generator<number> {
  let bytes = 0;
  let pieces = 0;
  let before: (HeldRun & { topic: string }) | undefined;
  let lastKey: Buffer | undefined;
  for (;;) {
    let isEnd = true;
    for (const { key, run, bytes: runBytes, pieceCount } of runs.after(lastKey, RUNS_AT_ONCE)) {
      isEnd = false;
      lastKey = key;
      const topic = readTopic(key);
      if (before?.topic === topic) {
        const { ordinal, count, offset, size } = before;
        const isNext = run.ordinal === ordinal + count && run.offset === offset + size;
        if (!isNext || run.first <= before.last)
          throw new DamageError(`events are missing before position ${run.first}`);
      } else if (run.first <= floorOf(topic)) {
        throw new DamageError(`events at position ${run.first} were removed`);
      }
      if (run.last > head.position)
        throw new DamageError(`it ends at position ${head.position}, and has ${run.last}`);
      checkEvents(run, runBytes, epochs.cursorAt(run.first).epoch);
      before = { ...run, topic };
      bytes += run.size;
      pieces += pieceCount;
    }
    if (isEnd) break;
    yield head.bytes > 0 ? Math.min(1, bytes / head.bytes) : 1;
  }
  if (bytes !== head.bytes)
    throw new DamageError(
      `it says that it holds ${head.bytes} bytes of events, and holds ${bytes}`,
    );
  if (pieces !== runs.pieceCount)
    throw new DamageError('it has pieces of events that belong to none');
}

/** Throws unless a run's bytes are exactly as many whole frames as its key says, each with its own cursor. */
function checkEvents({ first, count, size }: HeldRun, bytes: Buffer, epoch: string): void {
  let events = 0;
  let at = 0;
  for (; at + FRAME_HEADER_BYTES <= size && events < count; events++)
    at += FRAME_HEADER_BYTES + frameLength(bytes, at);
  const stamped = Buffer.from(bytes);
  const areWhole = events === count && at === size;
  if (areWhole) stampCursors(stamped, epoch, first);
  if (!areWhole || !stamped.equals(bytes))
    throw new DamageError(`the events at position ${first} are not whole`);
}
