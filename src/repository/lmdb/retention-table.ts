import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import { bytesOf, type StoredRun } from '../append-queue.js';
import type { RetentionLimits } from '../retention.js';
import type { RemovedIds } from './removed-ids.js';
import { positionKey, readRunKey } from './run-key.js';
import type { RunTable } from './run-table.js';

/** Some of what a commit stored, for the day it becomes too old: the topic and first position of each run. */
export interface CommitRecord {
  readonly storedAt: number;
  readonly runs: readonly (readonly [topic: string, first: Position])[];
}

/**
 * While events come in, removal begins once this share of a limit is over it, or so much: then there are many runs
 * of each topic to remove together, which costs LMDB a few pages; one by one, each costs as many as it took to
 * store. With nothing coming in, everything over a limit goes.
 */
const SLACK_SHARE = 1 / 64;
const MAX_SLACK_MILLISECONDS = 1_000;
const MAX_SLACK_BYTES = 8 * 2 ** 20;
/** A record fits on a page of LMDB (run-table.ts), but for very long topics. */
const RUNS_OF_RECORD = 64;
/** No commit removes more runs, or looks at more for removal, so that nobody waits long for it. */
const MOST_RUNS = 512;
/** What one commit removes: from so many topics, because each costs pages of its own, and so many bytes. */
interface Enough {
  readonly topics: number;
  readonly bytes: number;
}
/** For a commit that stores, or twice as much as it stores: always more than comes in. */
const ENOUGH: Enough = { topics: 64, bytes: 2 ** 20 };
const EVERYTHING: Enough = { topics: Infinity, bytes: Infinity };
/** Where runs are so small that it removes less, and so many bytes are owed, commits wait until they are removed. */
const MOST_OWED = 4 * 2 ** 20;
/** So many topics at a time are looked at that get nothing new: what they hold was stored under another limit. */
const TOPICS_AT_ONCE = 64;

/** Removes events from the old end of the log, some with each commit, in the same transaction. */
export class RetentionTable {
  /** The oldest commit that is noted, and which of its runs is the next to look at. */
  private front: { key: Buffer; record: CommitRecord; next: number } | undefined;
  /** Chosen for removal: of each of these topics, all runs that start up to a position. */
  private due = new Map<string, Position>();
  /** The commits of which nothing will be held after that. */
  private emptied: Buffer[] = [];
  /** Up to where commits were looked at for others of which nothing is held. */
  private lookedAt: Buffer | undefined;
  /** The topic that was looked at last, of those that get nothing new. */
  private lookedAtTopic: string | undefined;
  private owed = 0;

  constructor(
    /** Commits in the order of their positions. */
    private readonly order: Database<CommitRecord, Buffer>,
    /** Of each topic that lost events, the position of the newest removed. */
    private readonly floors: Database<Position, string>,
    private readonly runs: RunTable,
    private readonly removedIds: RemovedIds,
    readonly limits: RetentionLimits,
  ) {}

  floor(topic: string): Position {
    return this.floors.get(topic) ?? 0;
  }

  /** Whether something is to be removed, though nothing is stored. */
  isDue(now: number, heldBytes: number, isIdle: boolean): boolean {
    if (isIdle && this.limits.topicMaxBytes > 0) this.chooseOfTopics(this.nextTopics(), 0);
    return (
      this.due.size > 0 ||
      this.emptied.length > 0 ||
      this.isFrontOver(now, heldBytes, isIdle ? 0 : SLACK_SHARE)
    );
  }

  /** Whether the next commit is to wait for removals. */
  get isBehind(): boolean {
    return this.owed > MOST_OWED;
  }

  /**
   * Notes what a commit stores, and removes what is over the limits. To be called within its batch.
   *
   * @param stored nothing, in a commit that is for removals only
   * @param heldBytes of events, with these
   * @returns how many bytes of events were removed
   */
  keepWithin(stored: readonly StoredRun[], now: number, heldBytes: number): number {
    const isStoring = stored.length > 0;
    for (let i = 0; i < stored.length; i += RUNS_OF_RECORD) {
      const part = stored.slice(i, i + RUNS_OF_RECORD);
      const runs = part.map(({ topic, first }) => [topic, first] as const);
      void this.order.put(positionKey(part[0].first), { storedAt: part[0].storedAt, runs });
    }
    const storedBytes = bytesOf(stored);
    const topics = new Set(stored.map((run) => run.topic));
    const enough: Enough = isStoring
      ? {
          topics: Math.max(ENOUGH.topics, 2 * topics.size),
          bytes: Math.max(ENOUGH.bytes, 2 * storedBytes),
        }
      : EVERYTHING;
    const slackShare = isStoring ? SLACK_SHARE : 0;
    // What a commit removes can still be read within it: so all is chosen first, and nothing twice.
    if (this.due.size === 0 && this.emptied.length === 0) {
      if (this.isFrontOver(now, heldBytes, slackShare))
        this.chooseOldest(now, heldBytes, enough.bytes);
    }
    if (this.limits.topicMaxBytes > 0) this.chooseOfTopics(topics, SLACK_SHARE);
    const removed = this.removeSome(now, enough);
    this.owed = this.isOverBytes(heldBytes - removed)
      ? Math.max(0, this.owed + 2 * storedBytes - removed)
      : 0;
    return removed;
  }

  /** To be called when a batch failed: what it was to remove is still there. */
  forgetChoice(): void {
    this.front = undefined;
    this.due.clear();
    this.emptied = [];
  }

  /** Of the oldest commits, about as much as a commit may remove. */
  private chooseOldest(now: number, heldBytes: number, enoughBytes: number): void {
    let left = heldBytes;
    let looks = 0;
    for (let front = this.front; front; front = this.front = this.commitAfter(front.key)) {
      if (heldBytes - left >= enoughBytes) return;
      const { key, record } = front;
      for (; front.next < record.runs.length; front.next++) {
        if (looks++ === MOST_RUNS || !this.isOver(record, now, left, 0)) return;
        const [topic, first] = record.runs[front.next];
        const run = this.runs.oldest(topic, first);
        // It may be gone already, with its topic's limit.
        if (run?.first !== first) continue;
        this.choose(topic, first);
        left -= run.size;
      }
      this.emptied.push(key);
    }
  }

  private commitAfter(key?: Buffer): typeof this.front {
    const range = { start: key, exclusiveStart: key !== undefined, limit: 1 };
    for (const found of this.order.getRange(range))
      return { key: found.key, record: found.value, next: 0 };
    return undefined;
  }

  private chooseOfTopics(topics: Iterable<string>, slackShare: number): void {
    const { topicMaxBytes } = this.limits;
    for (const topic of topics) {
      if (this.due.has(topic)) continue;
      const newest = this.runs.newest(topic);
      const oldest = this.runs.oldest(topic);
      if (!newest || !oldest) continue;
      const end = newest.offset + newest.size;
      if (end - oldest.offset <= withSlack(topicMaxBytes, slackShare)) continue;
      const excess = end - topicMaxBytes;
      // The newest run stays, however large.
      const kept = this.runs.first(topic, newest.first, ({ offset }) => offset >= excess) ?? newest;
      this.choose(topic, kept.first - 1);
    }
  }

  /** Round and round, some at a time. */
  private *nextTopics(): Iterable<string> {
    for (let i = 0; i < TOPICS_AT_ONCE; i++) {
      this.lookedAtTopic = this.runs.topicAfter(this.lookedAtTopic);
      if (this.lookedAtTopic === undefined) return;
      yield this.lookedAtTopic;
    }
  }

  private choose(topic: string, upTo: Position): void {
    this.due.set(topic, Math.max(upTo, this.due.get(topic) ?? 0));
  }

  /**
   * Topic by topic, because a topic's runs are next to each other.
   *
   * @returns how many bytes were removed
   */
  private removeSome(now: number, enough: Enough): number {
    let topics = 0;
    let removed = 0;
    let bytes = 0;
    const isEnough = (): boolean => removed >= MOST_RUNS || bytes >= enough.bytes;
    for (const [topic, upTo] of this.due) {
      if (topics++ === enough.topics) break;
      const keys: Buffer[] = [];
      for (const key of this.runs.oldestKeys(topic, upTo)) {
        if (isEnough()) break;
        keys.push(key);
        bytes += readRunKey(key).size;
        removed++;
      }
      if (keys.length > 0) this.removeRuns(topic, keys, now);
      if (isEnough()) break;
      this.due.delete(topic);
    }
    if (this.due.size === 0) {
      for (const key of this.emptied) void this.order.remove(key);
      this.emptied = [];
    }
    if (removed > 0) {
      this.removedIds.forget(now, 2 * removed);
      if (this.limits.topicMaxBytes > 0) this.forgetEmptied(2 * removed);
    }
    return bytes;
  }

  private removeRuns(topic: string, keys: readonly Buffer[], now: number): void {
    const runs = keys.map(readRunKey);
    this.removedIds.keep(topic, runs, now, (run) => this.runs.bytesOf(keys[run]));
    for (const key of keys) this.runs.remove(key);
    void this.floors.put(topic, runs[runs.length - 1].last);
  }

  /**
   * Topic limits empty commits in any order, and the oldest may be held for ever: looks at a few of all, one after
   * another and round again, so that there are never many more than hold something.
   */
  private forgetEmptied(atMost: number): void {
    let looks = 0;
    const range = { start: this.lookedAt, exclusiveStart: this.lookedAt !== undefined };
    for (const { key, value } of this.order.getRange(range)) {
      if (looks >= atMost) return;
      this.lookedAt = key;
      const isHeld = value.runs.some(([topic, first]) => {
        looks++;
        return this.runs.oldest(topic, first)?.first === first;
      });
      if (isHeld) continue;
      void this.order.remove(key);
      if (this.front?.key.equals(key)) this.front = undefined;
    }
    this.lookedAt = undefined;
  }

  private isFrontOver(now: number, heldBytes: number, slackShare: number): boolean {
    if (!this.hasLimit) return false;
    this.front ??= this.commitAfter();
    return this.front !== undefined && this.isOver(this.front.record, now, heldBytes, slackShare);
  }

  private isOverBytes(heldBytes: number): boolean {
    const { maxBytes, topicMaxBytes } = this.limits;
    return (
      (maxBytes > 0 && heldBytes > withSlack(maxBytes, SLACK_SHARE)) ||
      (topicMaxBytes > 0 && this.due.size > 0)
    );
  }

  private get hasLimit(): boolean {
    return this.limits.maxAge > 0 || this.limits.maxBytes > 0;
  }

  private isOver(
    { storedAt }: CommitRecord,
    now: number,
    heldBytes: number,
    slackShare: number,
  ): boolean {
    const { maxAge, maxBytes } = this.limits;
    const age = maxAge + Math.min(maxAge * slackShare, MAX_SLACK_MILLISECONDS);
    return (
      (maxAge > 0 && storedAt < now - age) ||
      (maxBytes > 0 && heldBytes > withSlack(maxBytes, slackShare))
    );
  }
}

function withSlack(bytes: number, share: number): number {
  return bytes + Math.min(bytes * share, MAX_SLACK_BYTES);
}
