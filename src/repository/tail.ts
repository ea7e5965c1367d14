import type { Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import { type FollowedSet, FollowedSets, PLACE_BYTES } from './followed-sets.js';
import { RunList } from './run-list.js';
import type { StoredRun } from './stored-run.js';

/** A run takes about this many bytes of memory beside its events. It matters if each commit has one event. */
const RUN_OVERHEAD = 400;

interface TopicTail {
  readonly runs: RunList<StoredRun>;
  /** The last batch that was read. Most watches of a topic read after the same position. */
  memo: { after: Position; maxBytes: number; batch: EventBatch } | undefined;
}

/** The newest runs of all topics, in memory, up to `maxBytes` together. All watches share it. */
export class Tail {
  readonly sets = new FollowedSets();
  private bytes = 0;
  private readonly topics = new Map<string, TopicTail>();
  private readonly all = new RunList<StoredRun>();

  constructor(
    /** The tail holds every event after this position. */
    public horizon: Position,
    private readonly maxBytes: number,
  ) {}

  /** Returns how many lists of sets it has looked at, which may be thousands. */
  add(run: StoredRun): number {
    let tail = this.topics.get(run.topic);
    if (!tail) this.topics.set(run.topic, (tail = { runs: new RunList(), memo: undefined }));
    tail.runs.push(run);
    this.all.push(run);
    this.bytes += run.bytes.length + RUN_OVERHEAD;
    const sets = this.sets.of(run.topic);
    for (const set of sets) {
      set.add(run);
      this.bytes += PLACE_BYTES;
    }
    let lists = sets.size;
    while (this.bytes > this.maxBytes) lists += this.removeOldest();
    return lists;
  }

  /** Returns events after a position that is not before the horizon. */
  read(topic: string, after: Position, maxBytes: number): EventBatch | undefined {
    const tail = this.topics.get(topic);
    if (!tail || tail.runs.newest!.last <= after) return undefined;
    if (tail.memo?.after === after && tail.memo.maxBytes === maxBytes) return tail.memo.batch;
    const batch = tail.runs.read(after, Infinity, maxBytes)!;
    tail.memo = { after, maxBytes, batch };
    return batch;
  }

  /** Stops following a set for one of its readers. */
  leave(set: FollowedSet): void {
    if (this.sets.leave(set)) this.bytes -= set.places * PLACE_BYTES;
  }

  /** Moves the horizon up to a position, before which events are missing. */
  forget(upTo: Position): void {
    this.horizon = Math.max(this.horizon, upTo);
  }

  /** Returns the run that holds a topic's event, if the tail has it. */
  runAt(topic: string, position: Position): StoredRun | undefined {
    const run = this.topics.get(topic)?.runs.newestUpTo(position);
    return run && position <= run.last ? run : undefined;
  }

  private removeOldest(): number {
    const run = this.all.oldest!;
    this.horizon = Math.max(this.horizon, run.last);
    this.bytes -= run.bytes.length + RUN_OVERHEAD;
    this.all.removeOldest();
    const sets = this.sets.of(run.topic);
    for (const set of sets) {
      // A set that was followed later does not have it.
      if (set.runs.oldest !== run) continue;
      set.removeOldest();
      this.bytes -= PLACE_BYTES;
    }
    const tail = this.topics.get(run.topic)!;
    tail.runs.removeOldest();
    tail.memo = undefined;
    if (tail.runs.oldest === undefined) this.topics.delete(run.topic);
    return sets.size;
  }
}
