import type { Position } from '../../wire/cursor.js';
import { cutAfter, type EventBatch, joined } from '../../wire/event-batch.js';
import { narrowest } from '../../wire/topic-pattern.js';
import type { TopicSet } from '../../wire/topic-set.js';
import { EventsRemovedError } from '../event-repository.js';
import type { FollowedSet } from '../followed-sets.js';
import { promptly } from '../promptly.js';
import type { Tail } from '../tail.js';
import type { TopicReader } from '../topic-reader.js';
import type { StreamInfo } from '../../nats/stream-api.js';
import { type FloorLook, isSame, type Removals } from './floor-looks.js';
import { ListedRuns } from './listed-runs.js';
import { endOf, isEnd, type RunMessage, sequenceOf } from './message.js';
import type { Replica } from './replica.js';
import { READ_AHEAD } from './stored-runs.js';

/** This many topics are asked for at a time. */
const AT_ONCE = 50;
/** A search for the newest events goes back by this many messages at first, and by twice as many each time, up to a bound. */
const FIRST_STEP = 256;
const LARGEST_STEP = 16_384;
/** It asks for about this much at a time, in bytes. */
const STEP_BYTES = 256 * 1024;
/** About this many runs are listed at a time (some 20 KiB of memory for a watch), and no more once they have this many bytes. */
const MOST_LISTED = 2_048;
const LISTED_BYTES = 8 * 1024 * 1024;

/**
 * Reads several topics of a stream in the order of their positions. Near the head, the runs come from the tail. Before that, the
 * stream's servers are asked by the narrowest subject that all topics of the set have, and what is of other topics is left out.
 */
export class StreamSetReader implements TopicReader {
  private followed: { readonly set: FollowedSet; readonly tail: Tail } | undefined;
  private mayLackUpTo: Position = 0;
  /** As of the last look: the stream's removals, and the floor then. */
  private known: { readonly removals: Removals; readonly floor: Position } | undefined;
  /** How many topics the last look asked for. */
  private topicsAsked = 0;
  /** The runs that were listed before the last look. */
  private listed: ListedRuns | undefined;
  private readonly filter: string;

  constructor(
    /** Returns the current replica: once the stream seemed to be another one, it is a new one. */
    private readonly replica: () => Replica,
    private readonly topics: TopicSet,
    private readonly since: (time: number) => number,
    /** Settles as a read does, and reads again if the stream only seemed to be another one. */
    private readonly outlasting: <T>(
      reading: Promise<T>,
      again: () => T | Promise<T>,
    ) => Promise<T>,
  ) {
    this.filter = narrowest(topics.members);
  }

  async floor(): Promise<Position> {
    return this.floorAsOf(await this.replica().streamInfo());
  }

  beginning(): Position {
    return 0;
  }

  async positionBefore(since: number): Promise<Position | undefined> {
    return this.replica().positionBefore(this.filter, this.since(since));
  }

  /** It reads back from the head, in steps that grow. Each step is read forward, as the stream can only be read so. */
  async positionBeforeLast(count: number, head: Position, signal?: AbortSignal): Promise<Position> {
    const replica = this.replica();
    let missing = count;
    let end = sequenceOf(head) + 1;
    for (let step = FIRST_STEP; end > 1; step = Math.min(2 * step, LARGEST_STEP)) {
      const start = Math.max(1, end - step);
      const runs: { readonly last: Position; readonly count: number }[] = [];
      for (let from = start; from < end;) {
        const found = await replica.runsOfPattern(this.filter, from, STEP_BYTES);
        if (found.length === 0) break;
        for (const { sequence, run } of found)
          if (sequence < end && run.last <= head && this.topics.has(run.topic))
            runs.push({ last: run.last, count: run.count });
        signal?.throwIfAborted();
        from = found[found.length - 1].sequence + 1;
      }
      for (const run of runs.toReversed()) {
        if (run.count >= missing) return run.last - missing;
        missing -= run.count;
      }
      end = start;
    }
    return 0;
  }

  open(mayLackUpTo: Position): void {
    this.mayLackUpTo = mayLackUpTo;
    this.follow();
  }

  private follow(): void {
    const { tail, head } = this.replica().state;
    this.followed = { set: tail.sets.follow(this.topics, head), tail };
  }

  read(
    after: Position,
    maxBytes: number,
  ): EventBatch | undefined | Promise<EventBatch | undefined> {
    if (!this.followed) throw new Error('the reader is not open');
    // The stream seemed to be another one, and was not: the tail is that of a new replica.
    if (this.followed.tail !== this.replica().state.tail) {
      this.close();
      this.follow();
    }
    const { set, tail } = this.followed;
    if (after >= set.since && after >= tail.horizon) {
      this.listed = undefined;
      return set.read(after, maxBytes);
    }
    return this.outlasting(this.readStored(after, maxBytes), () => this.read(after, maxBytes));
  }

  private async readStored(after: Position, maxBytes: number): Promise<EventBatch | undefined> {
    const replica = this.replica();
    const { head } = replica;
    const mayLackUpTo = Math.max(after, this.mayLackUpTo);
    const from = Math.max(1, firstWithEventsAfter(after));
    let found = await replica.runsOfPattern(this.filter, from, maxBytes + READ_AHEAD, Infinity);
    if (
      this.hasGap(found, after, mayLackUpTo) ||
      this.listed?.hasMoreThan(found, firstWithEventsAfter(mayLackUpTo))
    ) {
      // That server has left out a run, or it was removed. Only the leader is asked for the next one: what it passes by it has removed.
      const next = await replica.oldest(this.filter, Infinity, from);
      found = next ? [next] : [];
    }
    await this.verify(found, from, mayLackUpTo);
    return this.batchOf(found, after, head, maxBytes);
  }

  /**
   * Throws if an event after `mayLackUpTo` is not in these runs, which were read from a sequence on, because it was removed. The stream says
   * that something was removed, and not where: then it is asked for the beginning of each topic. So that this is not done for each read, further
   * runs are listed before. A read that has all that is listed lacks none.
   */
  private async verify(
    found: readonly RunMessage[],
    from: number,
    mayLackUpTo: Position,
  ): Promise<void> {
    const needed = firstWithEventsAfter(mayLackUpTo);
    if (this.listed?.reachesOver(found, from) && !this.listed.hasMoreThan(found, needed)) return;
    const replica = this.replica();
    // Only after the answers, those to list() too: what was removed before them is missing in them.
    let info = await replica.streamInfo(Infinity);
    const listed = this.isOutdated(info) ? await this.list(replica, found, from) : undefined;
    if (listed) info = await replica.streamInfo(Infinity);
    const floor = await this.floorAsOf(info, Infinity);
    if (floor > mayLackUpTo) throw new EventsRemovedError();
    this.listed = listed;
  }

  /** Lists these runs and about as many behind them as a look asks for topics, so that neither takes much longer than the other. */
  private async list(
    replica: Replica,
    found: readonly RunMessage[],
    from: number,
  ): Promise<ListedRuns | undefined> {
    // So few topics are asked for in one go.
    if (found.length === 0 || this.topicsAsked <= AT_ONCE) return undefined;
    const listed = new ListedRuns(from);
    listed.add(found, this.topics);
    let missing = Math.min(this.topicsAsked, MOST_LISTED);
    for (let bytes = 0; missing > 0 && bytes < LISTED_BYTES;) {
      const more = await replica.runsOfPattern(this.filter, listed.upTo + 1, STEP_BYTES, Infinity);
      if (more.length === 0) break;
      listed.add(more, this.topics);
      missing -= more.length;
      for (const { run } of more) bytes += run.bytes.length;
    }
    return listed;
  }

  /** Returns true if one of these runs follows an event of its topic that should be in them and is not. */
  private hasGap(found: readonly RunMessage[], after: Position, mayLackUpTo: Position): boolean {
    const lasts = new Map<string, Position>();
    for (const { run, previous } of found) {
      const before = Math.max(mayLackUpTo, lasts.get(run.topic) ?? 0);
      if (run.last > after && previous > before && this.topics.has(run.topic)) return true;
      lasts.set(run.topic, run.last);
    }
    return false;
  }

  private batchOf(
    found: readonly RunMessage[],
    after: Position,
    head: Position,
    maxBytes: number,
  ): EventBatch | undefined {
    const parts: EventBatch[] = [];
    let bytes = 0;
    let upTo = after;
    for (const { run, sequence } of found) {
      if (run.last > head) return parts.length > 0 ? joined(parts) : undefined;
      if (run.count > 0 && run.last > after && this.topics.has(run.topic)) {
        const part = run.first > after ? run : cutAfter(run, after);
        bytes += part.bytes.length;
        if (parts.length > 0 && bytes > maxBytes) break;
        parts.push(part);
      }
      upTo = Math.max(upTo, endOf(sequence));
    }
    if (parts.length > 0) return joined(parts);
    if (found.length === 0) return undefined;
    return { bytes: Buffer.alloc(0), count: 0, last: Math.min(upTo, head) };
  }

  /** Counting costs two questions for each topic, so it is done for watches of few topics only. */
  async countAfter(after: Position): Promise<number | undefined> {
    const replica = this.replica();
    if (after >= replica.head) return 0;
    const { names, patterns } = this.topics;
    if (patterns.length > 0 || names.length > AT_ONCE) return undefined;
    const counts = await Promise.all(names.map((name) => replica.countAfter(name, after)));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  ageOfNext(after: Position): Promise<number | undefined> {
    return promptly(this.replica().ageOfNext(this.filter, after));
  }

  close(): void {
    this.followed?.tail.leave(this.followed.set);
    this.followed = undefined;
  }

  /** Returns true if the stream has removed something since the last look. */
  private isOutdated(info: StreamInfo): boolean {
    return !this.known || !isSame(this.known.removals, removalsOf(info));
  }

  /** Returns the floor, as of the stream's state or later. It looks for it only if the stream has removed something since the last look. */
  private async floorAsOf(info: StreamInfo, patience?: number): Promise<Position> {
    if (this.known && !this.isOutdated(info)) return this.known.floor;
    const removals = removalsOf(info);
    const { firstSequence, between } = removals;
    // Limits of the stream remove its oldest messages, of whatever topic.
    let floor = firstSequence > 1 ? endOf(firstSequence - 1) : 0;
    // Feed removes messages of single topics, and leaves at least one that says what came before.
    if (between > 0) {
      const look = () => this.lookForFloor(patience);
      // The look of a start may fail after some time, and that of an open watch may not.
      const isOfStart = patience === undefined;
      const { looks } = this.replica();
      const found = await (isOfStart ? looks.of(this.topics.key, removals, look) : look());
      this.topicsAsked = found.topicsAsked;
      floor = Math.max(floor, found.floor);
    }
    this.known = { removals, floor };
    return floor;
  }

  private async lookForFloor(patience?: number): Promise<FloorLook> {
    const replica = this.replica();
    const { names, patterns } = this.topics;
    let floor = 0;
    let topicsAsked = 0;
    const lookAt = async (topics: readonly string[]): Promise<void> => {
      topicsAsked += topics.length;
      for (let i = 0; i < topics.length; i += AT_ONCE) {
        const part = topics.slice(i, i + AT_ONCE);
        const oldest = await Promise.all(part.map((topic) => replica.oldest(topic, patience)));
        for (const run of oldest) floor = Math.max(floor, run?.previous ?? 0);
      }
    };
    await lookAt(names);
    if (patterns.length > 0) {
      const listed = await replica.topicsOfPattern(this.filter, patience);
      await lookAt(listed.filter((topic) => this.topics.has(topic)));
    }
    return { floor, topicsAsked };
  }
}

/** Returns the sequence of the first message that may have events after a position. The run of that position itself may. */
const firstWithEventsAfter = (position: Position): number =>
  sequenceOf(position) + (isEnd(position) ? 1 : 0);

function removalsOf({ state }: StreamInfo): Removals {
  return { firstSequence: state.first_seq, between: state.num_deleted ?? 0 };
}
