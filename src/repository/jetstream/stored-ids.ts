import type { Position } from '../../wire/cursor.js';
import { FrameWalk } from '../frame-walk.js';
import { idOf } from '../framed-ids.js';
import type { StoredRun } from '../stored-run.js';
import type { Tail } from '../tail.js';
import { inParts } from './in-parts.js';
import { firstOf, type RunMessage, sequenceOf } from './message.js';

/**
 * The ids of stored events, which deduplication compares, for one commit after another. Those in the tail are at hand. A
 * commit that asks for others is built as if they were not stored; then fetch() reads them, and the commit is built again.
 */
export class StoredIds {
  /** Positions of events that the commit asked for and that are not in memory. */
  private readonly missing = new Set<Position>();
  /** Runs that fetch() has read, by sequence; undefined if the run is not held. */
  private readonly fetched = new Map<number, FrameWalk | undefined>();
  /** True from fetch() until the commit is built again. */
  private isBuiltAgain = false;
  /** The run that was looked at last, because deduplication mostly asks for one event after another. */
  private last: { readonly run: StoredRun; readonly frames: FrameWalk } | undefined;

  /** @param read returns the run in the message of a sequence, or undefined if it is not held */
  constructor(
    private readonly tail: Tail,
    private readonly read: (sequence: number) => Promise<RunMessage | undefined>,
  ) {}

  /** True if the commit must not be stored as it was built: fetch() and build it again. */
  get areMissing(): boolean {
    return this.missing.size > 0;
  }

  /** A commit is to be built. */
  begin(): void {
    this.isBuiltAgain = false;
    this.missing.clear();
  }

  /** Call it once a commit has ended. What fetch() has read is dropped, unless the commit is built again with it. */
  settled(): void {
    if (!this.isBuiltAgain) this.fetched.clear();
    this.last = undefined;
  }

  /** Returns the id of the event at a position; undefined if it is not held, or not in memory. */
  at(topic: string, position: Position): Buffer | undefined {
    const run = this.tail.runAt(topic, position);
    if (run) {
      if (this.last?.run !== run) this.last = { run, frames: new FrameWalk(run.bytes) };
      return idOf(this.last.frames.at(position - run.first));
    }
    const sequence = sequenceOf(position);
    if (this.fetched.has(sequence)) {
      const frames = this.fetched.get(sequence);
      return frames && idOf(frames.at(position - firstOf(sequence)));
    }
    this.missing.add(position);
    return undefined;
  }

  /** Reads what is missing. */
  async fetch(): Promise<void> {
    const sequences = new Set(Array.from(this.missing, sequenceOf));
    this.isBuiltAgain = true;
    await inParts([...sequences], async (sequence) => {
      const message = await this.read(sequence);
      this.fetched.set(sequence, message && new FrameWalk(message.run.bytes));
    });
  }
}
