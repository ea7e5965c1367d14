import { setImmediate } from 'node:timers/promises';
import type { Position } from '../wire/cursor.js';
import { cutAfter, type EventBatch, joined } from '../wire/event-batch.js';
import type { TopicSet } from '../wire/topic-set.js';
import type { CommitIndex, CommitRecord, Engine, Removal } from './engine.js';
import { EventsRemovedError } from './event-repository.js';
import { type FollowedSet, MOST_CHANGED } from './followed-sets.js';
import type { LogClock } from './log-clock.js';
import { firstWhere } from './stored-run.js';
import type { Tail } from './tail.js';
import type { TopicReader } from './topic-reader.js';
import { nextTurn } from './turns.js';

/** The most runs, records or topics that are looked at before other work has its turn. */
const MOST_LOOKS = 1_024;
/**
 * The most looks of a search's first part, which does not wait for its turn: hundreds of watches may start in one turn, and most of them find
 * their events near by.
 */
const FIRST_LOOKS = 64;
/** A look takes longer with more patterns. With this many, half as many looks are taken. */
const HALVING_PATTERNS = 64;
/** Counting takes a few searches for each topic, and metrics count at many watches in a row. Sets of more topics are not counted. */
const MOST_COUNTED = 100;

const NO_EVENTS = Buffer.alloc(0);

/** The parts of an EventLog that its readers of sets use. */
export interface ReadLog {
  readonly engine: Engine;
  readonly tail: Tail;
  readonly clock: LogClock;
  readonly head: Position;
  /** What the commit that is under way removes; undefined if none is. */
  readonly removing: Removal | undefined;
  /** EventRepository.countAfter(). */
  countAfter(topic: string, after: Position): Promise<number>;
}

/**
 * Reads several topics of an EventLog in the order of their positions: near the head from the tail's runs of the set, and before
 * that along the commit index, of which it reads the runs of its topics only.
 */
export class SetReader implements TopicReader {
  private followed: FollowedSet | undefined;
  private mayLackUpTo: Position = 0;
  private readonly mostLooks: number;
  /** How many runs the next read of stored events looks at. */
  private looks: number;

  constructor(
    private readonly log: ReadLog,
    private readonly topics: TopicSet,
  ) {
    this.mostLooks = mostLooksFor(topics);
    this.looks = Math.min(FIRST_LOOKS, this.mostLooks);
  }

  async floor(): Promise<Position> {
    let floor = 0;
    const { removing } = this.log;
    await eachFloor(this.log.engine, this.topics, (one) => (floor = Math.max(floor, one)));
    for (const [topic, runs] of removing?.runs ?? [])
      if (this.topics.has(topic)) floor = Math.max(floor, runs[runs.length - 1].last);
    return floor;
  }

  beginning(): Position {
    return 0;
  }

  /** Commits are stored in the order of their times, so no topic needs to be looked at. */
  positionBefore(since: number): Promise<Position | undefined> {
    const storedSince = this.log.clock.since(since);
    const { commits } = this.log.engine;
    const found = firstWhere(
      (from) => first(commits.after(from === 0 ? undefined : from - 1)),
      this.log.head,
      ({ storedAt }) => storedAt >= storedSince,
    );
    return Promise.resolve(found && found.first - 1);
  }

  /** It goes back along the commit index, a part at a time. */
  async positionBeforeLast(count: number, head: Position, signal?: AbortSignal): Promise<Position> {
    const { runs, commits } = this.log.engine;
    let missing = count;
    let from = head;
    let most = this.looks;
    for (;;) {
      let looks = 0;
      let isAtEnd = true;
      for (const record of commits.upTo(from)) {
        if (looks > most) {
          isAtEnd = false;
          break;
        }
        looks += record.runs.length;
        for (const [topic, start] of record.runs.toReversed()) {
          if (start > head || !this.topics.has(topic)) continue;
          const run = runs.newest(topic, start);
          if (run?.first !== start) continue;
          if (run.count >= missing) return run.last - missing;
          missing -= run.count;
        }
        from = record.first - 1;
      }
      if (isAtEnd) return 0;
      most = this.mostLooks;
      await nextTurn();
      signal?.throwIfAborted();
    }
  }

  open(mayLackUpTo: Position): void {
    const { tail, head } = this.log;
    this.mayLackUpTo = mayLackUpTo;
    const followed = tail.sets.follow(this.topics, head);
    this.followed = followed;
    if (followed.readers > 1) return;
    findFloor(this.log, followed);
  }

  read(
    after: Position,
    maxBytes: number,
  ): EventBatch | undefined | Promise<EventBatch | undefined> {
    const { followed, log } = this;
    if (!followed) throw new Error('the reader is not open');
    if (after >= followed.since && after >= log.tail.horizon) return followed.read(after, maxBytes);
    if (followed.findingFloor) return followed.findingFloor.then(() => this.read(after, maxBytes));
    const mayLackUpTo = Math.max(after, this.mayLackUpTo);
    if (followed.floor > mayLackUpTo) throw new EventsRemovedError();
    return this.readStored(after, mayLackUpTo, maxBytes);
  }

  private readStored(
    after: Position,
    mayLackUpTo: Position,
    maxBytes: number,
  ): EventBatch | undefined {
    const { engine, head } = this.log;
    const parts: EventBatch[] = [];
    let bytes = 0;
    let looks = 0;
    const most = this.looks;
    this.looks = this.mostLooks;
    for (const record of recordsFrom(engine.commits, after + 1)) {
      for (const [i, [topic, start]] of record.runs.entries()) {
        if (start > head) return batchOf(parts);
        // The next run begins at or before `after` + 1, so all of this one comes before.
        if (record.runs[i + 1]?.[1] <= after + 1) continue;
        if (looks++ === most) return batchOf(parts, Math.max(after, start - 1));
        if (!this.topics.has(topic)) continue;
        const run = engine.runs.at(topic, start);
        if (!run) {
          if (start > mayLackUpTo) throw new EventsRemovedError();
          continue;
        }
        if (run.last <= after) continue;
        const part = run.first > after ? run : cutAfter(run, after);
        bytes += part.bytes.length;
        if (parts.length > 0 && bytes > maxBytes) return batchOf(parts);
        parts.push(part);
      }
    }
    return batchOf(parts);
  }

  async countAfter(after: Position): Promise<number | undefined> {
    if (after >= this.log.head) return 0;
    const names: string[] = [];
    await this.eachHeld((topic) => names.push(topic) <= MOST_COUNTED);
    if (names.length > MOST_COUNTED) return undefined;
    const counts = await Promise.all(names.map((topic) => this.log.countAfter(topic, after)));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  /** It looks at a part of the log. A watch that is further from its next event than that is not behind for long. */
  ageOfNext(after: Position): Promise<number | undefined> {
    const { engine, clock } = this.log;
    let looks = 0;
    for (const record of recordsFrom(engine.commits, after + 1))
      for (const [topic, start] of record.runs) {
        if (looks++ === MOST_LOOKS) return Promise.resolve(undefined);
        if (start > after && this.topics.has(topic))
          return Promise.resolve(Math.max(0, clock.now() - record.storedAt));
      }
    return Promise.resolve(undefined);
  }

  close(): void {
    if (this.followed) this.log.tail.leave(this.followed);
    this.followed = undefined;
  }

  /** Calls `take` with each of the topics that hold something, until it returns false. */
  private async eachHeld(take: (topic: string) => boolean): Promise<void> {
    const { runs } = this.log.engine;
    const { prefixes, names } = lookupsOf(this.topics);
    for (const name of names) if (!take(name)) return;
    for (const prefix of prefixes) {
      let looks = 0;
      for (const topic of runs.topics(undefined, prefix)) {
        if (this.topics.has(topic) && !take(topic)) return;
        if (++looks % this.mostLooks === 0) await nextTurn();
      }
    }
  }
}

/** EventLog waits for this before a commit removes something, so that no reader of a set passes by what is missing. */
export async function noteRemovals(tail: Tail, removal: Removal): Promise<void> {
  let raised = 0;
  for (const [topic, runs] of removal.runs) {
    const sets = tail.sets.of(topic);
    for (const set of sets) raise(set, runs[runs.length - 1].last);
    raised += sets.size;
    if (raised < MOST_CHANGED) continue;
    raised = 0;
    await setImmediate();
  }
}

/** EventLog calls this where a commit has failed: what it was to remove is still held, so the floors are found anew. */
export function forgetRemovals(log: ReadLog, removal: Removal): void {
  const sets = new Set<FollowedSet>();
  for (const topic of removal.runs.keys()) for (const set of log.tail.sets.of(topic)) sets.add(set);
  for (const set of sets) {
    set.floor = 0;
    findFloor(log, set);
  }
}

/** Finds the floor of a set that is followed. Whatever is removed meanwhile is noted in it as well (noteRemovals). */
function findFloor({ engine, removing }: ReadLog, set: FollowedSet): void {
  for (const [topic, runs] of removing?.runs ?? [])
    if (set.topics.has(topic)) raise(set, runs[runs.length - 1].last);
  const finding = eachFloor(engine, set.topics, (floor) => raise(set, floor)).then(() => {
    if (set.findingFloor === finding) set.findingFloor = undefined;
  });
  // If the store fails, so does each read that waits for this.
  finding.catch(() => {});
  set.findingFloor = finding;
}

/** Calls `note` with the floor of each of the topics that has lost events. */
async function eachFloor(
  engine: Engine,
  topics: TopicSet,
  note: (floor: Position) => void,
): Promise<void> {
  const mostLooks = mostLooksFor(topics);
  const { prefixes, names } = lookupsOf(topics);
  for (const name of names) note(engine.floor(name));
  for (const prefix of prefixes) {
    let looks = 0;
    for (const [topic, floor] of engine.floors(prefix)) {
      if (topics.has(topic)) note(floor);
      if (++looks % mostLooks === 0) await nextTurn();
    }
  }
}

function mostLooksFor({ patternCount }: TopicSet): number {
  return Math.ceil(MOST_LOOKS / (1 + patternCount / HALVING_PATTERNS));
}

function raise(set: FollowedSet, floor: Position): void {
  set.floor = Math.max(set.floor, floor);
}

/**
 * Returns what is looked up for a set: beginnings of topics, one of which each topic that a pattern matches begins with, and no other; and
 * the names that begin with none of them.
 */
function lookupsOf({ names, patterns }: TopicSet): { prefixes: string[]; names: string[] } {
  const beginnings = new Set(patterns.map((pattern) => /^[^*>]*/.exec(pattern)![0]));
  const prefixes: string[] = [];
  const others: string[] = [];
  // Sorted, everything that begins with a prefix follows it, up to the next prefix. Each with each, 1,000 patterns held the process for seconds.
  for (const text of [...beginnings, ...names].toSorted()) {
    const last = prefixes.at(-1);
    if (last !== undefined && text.startsWith(last)) continue;
    (beginnings.has(text) ? prefixes : others).push(text);
  }
  return { prefixes, names: others };
}

/** Yields the records of commits that have events from a position on. */
function* recordsFrom(commits: CommitIndex, position: Position): Iterable<CommitRecord> {
  const record = first(commits.upTo(position));
  if (record) yield record;
  yield* commits.after(position);
}

/** Makes a batch of what was found, up to a position if that is where the search has got to. */
function batchOf(parts: readonly EventBatch[], upTo?: Position): EventBatch | undefined {
  if (parts.length > 0) return joined(parts);
  return upTo === undefined ? undefined : { bytes: NO_EVENTS, count: 0, last: upTo };
}

function first<T>(all: Iterable<T>): T | undefined {
  for (const one of all) return one;
  return undefined;
}
