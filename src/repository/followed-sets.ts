import type { Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import { TopicIndex } from '../wire/topic-index.js';
import type { TopicSet } from '../wire/topic-set.js';
import { RunList } from './run-list.js';
import type { StoredRun } from './stored-run.js';

/** What a followed set takes of memory for each of its runs in the tail, in bytes. */
export const PLACE_BYTES = 16;

/**
 * The most lists or floors of sets that are changed in one turn of the event loop, which takes some 10 ms. A commit may have thousands of
 * topics, and each of them may be in thousands of different sets.
 */
export const MOST_CHANGED = 16_384;

/** A set of topics that readers follow, and its runs in the tail. All readers of the same topics share it. */
export class FollowedSet {
  readonly runs = new RunList<StoredRun>();
  /** How many runs these are. */
  places = 0;
  readers = 0;
  /** The position of the newest removed event of its topics, as far as it was looked for (SetReader). */
  floor: Position = 0;
  /** Settles once `floor` counts all that was removed before; undefined while it does. */
  findingFloor: Promise<void> | undefined;
  /** The last batch that was read. Most readers at the head read after the same position. */
  private memo: { after: Position; maxBytes: number; batch: EventBatch | undefined } | undefined;

  constructor(
    readonly topics: TopicSet,
    /** `runs` has every run of its topics after this position that the tail has. */
    readonly since: Position,
  ) {}

  add(run: StoredRun): void {
    this.runs.push(run);
    this.places++;
    this.memo = undefined;
  }

  removeOldest(): void {
    this.runs.removeOldest();
    this.places--;
    this.memo = undefined;
  }

  /** Returns events after a position that is neither before `since` nor before the tail's horizon. */
  read(after: Position, maxBytes: number): EventBatch | undefined {
    if (this.memo?.after === after && this.memo.maxBytes === maxBytes) return this.memo.batch;
    const batch = this.runs.read(after, Infinity, maxBytes);
    this.memo = { after, maxBytes, batch };
    return batch;
  }
}

/** Knows which sets are followed, and finds those of a topic. */
export class FollowedSets {
  private readonly byKey = new Map<string, FollowedSet>();
  private readonly index = new TopicIndex<FollowedSet>();
  /** The sets of the topic that was looked for last. */
  private readonly found = new Set<FollowedSet>();

  /** Returns the set of these topics for one more reader, who has to leave() it. A new one has no run yet. */
  follow(topics: TopicSet, head: Position): FollowedSet {
    let set = this.byKey.get(topics.key);
    if (!set) {
      this.byKey.set(topics.key, (set = new FollowedSet(topics, head)));
      for (const member of topics.members) this.index.add(member, set);
    }
    set.readers++;
    return set;
  }

  /** Returns true if that was the set's last reader, and nobody follows it any more. */
  leave(set: FollowedSet): boolean {
    if (--set.readers > 0) return false;
    this.byKey.delete(set.topics.key);
    // Else it would be held until the next look, which may not come.
    this.found.delete(set);
    for (const member of set.topics.members) this.index.delete(member, set);
    return true;
  }

  /** Returns the sets that have a topic, each once. The next call changes what this one has returned. */
  of(topic: string): Iterable<FollowedSet> & { readonly size: number } {
    const { found } = this;
    if (found.size > 0) found.clear();
    if (this.byKey.size > 0)
      this.index.visit(topic, (sets) => {
        for (const set of sets) found.add(set);
      });
    return found;
  }
}
