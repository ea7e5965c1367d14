import type { TopicEvents } from '../wire/check-events.js';
import type { Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import { allocate, concatenate } from '../wire/slab.js';
import { FrameWalk, frameStarting } from './frame-walk.js';
import { idOf } from './framed-ids.js';
import type { RecentIds } from './recent-ids.js';

/** Events of one topic in one commit, less those that are in the log already. */
export interface Kept {
  readonly events: TopicEvents;
  /** How many were left out. */
  readonly duplicates: number;
  /** The position of the last event, or of its earlier twin. */
  readonly last: Position;
}

/**
 * Leaves out events whose (topic, id) the log stored within its window. The queue calls it while it builds a commit, and
 * builds the next one only when that is durable or has failed: so an id counts as stored once its commit is durable, and
 * of twins within one commit both are durable or neither.
 */
export class Deduplication {
  private now = 0;
  /** The events of this commit that came in earlier appends, among which twins are looked for. */
  private taken: { topic: string; first: Position; events: TopicEvents }[] = [];
  // Of the call of keep() that is running: its events, the position of the first one kept, the indexes of those that
  // are duplicates, and the index of the one that isSame() compares.
  private events!: TopicEvents;
  private first = 0;
  private known: Set<number> | undefined;
  private frames!: FrameWalk;
  private at = 0;

  constructor(
    private readonly recent: RecentIds,
    /** The id of a topic's event at a position, or undefined where there is none. */
    private readonly storedIdAt: (topic: string, position: Position) => Buffer | undefined,
  ) {}

  /** Begins a commit, at a time of the log's. */
  begin(now: number): void {
    this.now = now;
    this.recent.mark();
  }

  /** @param isStored if not, its ids are not in the log, and must not push out of the window those that are */
  end(isStored: boolean): void {
    this.taken = [];
    if (!isStored) this.recent.rollBack();
  }

  /** @param first the position that the first kept event will have */
  keep(events: TopicEvents, first: Position): Kept {
    const { ids, count, topic } = events;
    this.events = events;
    this.frames = new FrameWalk(events.bytes);
    this.first = first;
    this.known = undefined;
    let next = first;
    let last = first;
    this.recent.prefetch(ids);
    for (let i = 0; i < count; i++) {
      const high = ids[2 * i];
      const low = ids[2 * i + 1];
      const hasId = high !== 0 || low !== 0;
      this.at = i;
      const known = hasId ? this.recent.find(high, low, this.now, this.isSame) : undefined;
      if (known !== undefined) {
        (this.known ??= new Set()).add(i);
        last = known;
        continue;
      }
      if (hasId) {
        this.recent.add(high, low, next, this.now);
      }
      last = next++;
    }
    const kept = this.known ? without(events, this.known) : events;
    this.taken.push({ topic, first, events: kept });
    return { events: kept, duplicates: count - kept.count, last };
  }

  private readonly isSame = (position: Position): boolean => {
    const taken = this.takenAt(position);
    const id = taken ? idOf(taken) : this.storedIdAt(this.events.topic, position);
    return id?.equals(idOf(this.frames.at(this.at))) ?? false;
  };

  /** An event of this commit. */
  private takenAt(position: Position): Buffer | undefined {
    if (position < (this.taken[0]?.first ?? this.first)) return undefined;
    if (position >= this.first) {
      let index = 0;
      for (let left = position - this.first; ; index++) {
        if (this.known?.has(index)) continue;
        if (left-- === 0) return frameAt(this.events.bytes, index);
      }
    }
    const part = this.taken.find(
      ({ first, events }) => position >= first && position < first + events.count,
    );
    return part?.topic === this.events.topic
      ? frameAt(part.events.bytes, position - part.first)
      : undefined;
  }
}

/**
 * Finds the ids of stored events. A producer that sends a stream again has them looked up one after another, so the last
 * run read is kept.
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
      // One run, so its positions are consecutive.
      if (!batch || batch.last - batch.count + 1 !== position) return undefined;
      const frames = new FrameWalk(batch.bytes);
      this.run = run = { topic, first: position, last: batch.last, frames };
    }
    return idOf(run.frames.at(position - run.first));
  }
}

/** The events but for those left out. */
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

function frameAt(bytes: Buffer, index: number): Buffer {
  return new FrameWalk(bytes).at(index);
}
