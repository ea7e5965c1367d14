import type { TopicEvents } from '../wire/check-events.js';
import type { Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import { allocate, concatenate } from '../wire/slab.js';
import { FrameWalk, frameStarting } from './frame-walk.js';
import { idOf } from './framed-ids.js';
import type { RecentIds } from './recent-ids.js';

/** The answer of keep(). */
export interface Kept {
  /** The events that are not in the log yet. */
  readonly events: TopicEvents;
  /** How many events were left out. */
  readonly duplicates: number;
  /** The position of the last event; if it is a duplicate, that of the stored event. */
  readonly last: Position;
}

/**
 * Leaves out duplicates: events whose (topic, id) the log stored within its window. The queue calls begin(), then keep()
 * for each part of a commit, then end() once the commit is durable or has failed, and only then begins the next one. An
 * event may also be the duplicate of an earlier one in the same commit: both become durable, or neither.
 */
export class Deduplication {
  private now = 0;
  /** The results of keep() in this commit, in the order of positions. Reads of the log do not find their events yet. */
  private kept: KeptPart[] = [];

  // State of the keep() that is running, here because a closure for each call would cost more.
  private events!: TopicEvents;
  private frames!: FrameWalk;
  /** The position of the first event kept. */
  private first = 0;
  /** The indexes of the duplicates found so far; undefined as long as there are none. */
  private duplicates: Set<number> | undefined;
  /** The index of the event that isSame() compares. */
  private index = 0;

  constructor(
    private readonly recent: RecentIds,
    /** Returns the id of a topic's stored event at a position, or undefined if there is none. */
    private readonly storedIdAt: (topic: string, position: Position) => Buffer | undefined,
  ) {}

  /** Begins a commit, at `now` of the log's time. */
  begin(now: number): void {
    this.now = now;
    this.recent.mark();
  }

  /** Ends the commit. If it was not stored, its ids are forgotten, and those that they overwrote come back. */
  end(isStored: boolean): void {
    this.kept = [];
    if (!isStored) this.recent.rollBack();
  }

  /** Returns the events that are no duplicates. The first of them will have the position `first`. */
  keep(events: TopicEvents, first: Position): Kept {
    const { ids, count, topic } = events;
    this.events = events;
    this.frames = new FrameWalk(events.bytes);
    this.first = first;
    this.duplicates = undefined;
    let next = first;
    let last = first;
    this.recent.prefetch(ids);
    for (let i = 0; i < count; i++) {
      const high = ids[2 * i];
      const low = ids[2 * i + 1];
      const hasId = high !== 0 || low !== 0;
      this.index = i;
      const known = hasId ? this.recent.find(high, low, this.now, this.isSame) : undefined;
      if (known !== undefined) {
        (this.duplicates ??= new Set()).add(i);
        last = known;
        continue;
      }
      if (hasId) this.recent.add(high, low, next, this.now);
      last = next++;
    }
    const kept = this.duplicates ? without(events, this.duplicates) : events;
    if (kept.count > 0) this.kept.push({ topic, first, frames: new FrameWalk(kept.bytes) });
    return { events: kept, duplicates: count - kept.count, last };
  }

  /** Returns true if the event at a position has the id of the event at `index`. */
  private readonly isSame = (position: Position): boolean => {
    const uncommitted = this.uncommittedAt(position);
    const id = uncommitted ? idOf(uncommitted) : this.storedIdAt(this.events.topic, position);
    return id?.equals(idOf(this.frames.at(this.index))) ?? false;
  };

  /** Returns the frame of an event of this commit, or undefined if the position belongs to an earlier commit. */
  private uncommittedAt(position: Position): Buffer | undefined {
    if (position >= this.first) {
      let index = 0;
      for (let left = position - this.first; ; index++) {
        if (this.duplicates?.has(index)) continue;
        if (left-- === 0) return new FrameWalk(this.events.bytes).at(index);
      }
    }
    const part = this.keptAt(position);
    return part?.topic === this.events.topic ? part.frames.at(position - part.first) : undefined;
  }

  /**
   * Returns the part of this commit that has a position before `first`. It is a binary search: a commit of many topics has as many
   * parts, and all of its events may be duplicates.
   */
  private keptAt(position: Position): KeptPart | undefined {
    const { kept } = this;
    let low = 0;
    let high = kept.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (kept[middle].first > position) high = middle;
      else low = middle + 1;
    }
    return kept[low - 1];
  }
}

/** The events of a part of a commit that are no duplicates: those from `first` on. */
interface KeptPart {
  readonly topic: string;
  readonly first: Position;
  readonly frames: FrameWalk;
}

/**
 * Finds the ids of stored events. It keeps the run that it read last: when a producer sends a stream again, positions
 * are asked for one after another.
 */
export class StoredIds {
  private run: { topic: string; first: Position; last: Position; frames: FrameWalk } | undefined;

  constructor(
    private readonly log: {
      read(topic: string, after: Position, maxBytes: number): EventBatch | undefined;
    },
  ) {}

  /** Returns the id of a topic's event at a position; undefined if there is none. */
  at(topic: string, position: Position): Buffer | undefined {
    let { run } = this;
    if (run?.topic !== topic || position < run.first || position > run.last) {
      const batch = this.log.read(topic, position - 1, 1);
      // With a limit of one byte, read() returns events of one run, so their positions are consecutive.
      if (!batch || batch.last - batch.count + 1 !== position) return undefined;
      const frames = new FrameWalk(batch.bytes);
      this.run = run = { topic, first: position, last: batch.last, frames };
    }
    return idOf(run.frames.at(position - run.first));
  }
}

/** Returns the events without those at the indexes in `leftOut`. */
function without(
  { topic, bytes, ids, count }: TopicEvents,
  leftOut: ReadonlySet<number>,
): TopicEvents {
  const frames: Buffer[] = [];
  const keptIds = new Uint32Array(2 * (count - leftOut.size));
  let size = 0;
  for (let i = 0, at = 0; i < count; i++) {
    const event = frameStarting(bytes, at);
    at += event.length;
    if (leftOut.has(i)) continue;
    keptIds.set(ids.subarray(2 * i, 2 * i + 2), 2 * frames.length);
    frames.push(event);
    size += event.length;
  }
  return { topic, count: frames.length, bytes: concatenate(frames, allocate(size)), ids: keptIds };
}
