import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import type { StoredRun } from '../append-queue.js';
import type { RetentionLimits } from '../retention.js';
import type { RemovedIds } from './removed-ids.js';
import { positionKey, readPositionKey, readRunKey } from './run-key.js';
import type { RunTable } from './run-table.js';

/** What a commit stored, for the day it becomes too old: the topic and first position of each run. */
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
/** So many runs are chosen for removal at a time. */
const SWEEP_RUNS = 256;
/**
 * A commit removes about twice as many bytes as it stores, or so many runs: never so much at a time that writers
 * notice, and always more than comes in.
 */
const REMOVED_AT_ONCE = 8;
const REMOVED_WHEN_IDLE = 64;

/** Removes events from the old end of the log, a few with each commit, in the same transaction. */
export class RetentionTable {
  /**
   * Up to it, and maybe a little further, nothing is held any more. Infinity where there is no limit for all topics
   * together: then there is no such position.
   */
  oldestHeld: Position;

  /** The oldest commit of which something is held, so that it is not read again for every commit. */
  private front: CommitRecord | undefined;
  /** Chosen for removal: of each of these topics, all runs that start up to a position. */
  private due = new Map<string, Position>();
  /** The commits of which nothing will be held after that. */
  private emptied: Buffer[] = [];

  constructor(
    /** Commits in the order of their positions. */
    private readonly order: Database<CommitRecord, Buffer>,
    /** Of each topic that lost events, the position of the newest removed. */
    private readonly floors: Database<Position, string>,
    private readonly runs: RunTable,
    private readonly removedIds: RemovedIds,
    private readonly limits: RetentionLimits,
  ) {
    this.oldestHeld = this.hasLimit ? 0 : Infinity;
  }

  floor(topic: string): Position {
    return this.floors.get(topic) ?? 0;
  }

  /** Whether something is to be removed though nothing comes in. */
  isDue(now: number, heldBytes: number): boolean {
    return this.due.size > 0 || this.isFrontOver(now, heldBytes, 0);
  }

  /**
   * Notes what a commit stores, and removes what is over the limits. To be called within its batch.
   *
   * @returns how many bytes of events were removed
   */
  keepWithin(stored: readonly StoredRun[], now: number, heldBytes: number): number {
    const isIdle = stored.length === 0;
    if (!isIdle) {
      const runs = stored.map(({ topic, first }) => [topic, first] as const);
      void this.order.put(positionKey(stored[0].first), { storedAt: stored[0].storedAt, runs });
    }
    if (this.due.size === 0 && this.isFrontOver(now, heldBytes, isIdle ? 0 : SLACK_SHARE))
      this.chooseOldest(now, heldBytes);
    if (this.limits.topicMaxBytes > 0) this.chooseOfTopics(stored);
    if (this.due.size === 0 && this.emptied.length === 0) return 0;
    return isIdle
      ? this.removeSome(now, REMOVED_WHEN_IDLE, 0)
      : this.removeSome(now, REMOVED_AT_ONCE, 2 * bytesOf(stored));
  }

  /** To be called when a batch failed: what it was to remove is chosen anew. */
  chooseAnew(): void {
    this.front = undefined;
    this.due.clear();
    this.emptied = [];
  }

  private chooseOldest(now: number, heldBytes: number): void {
    this.front = undefined;
    let left = heldBytes;
    let chosen = 0;
    for (const { key, value } of this.order.getRange()) {
      for (const [topic, first] of value.runs) {
        if (chosen >= SWEEP_RUNS || !this.isOver(value, now, left, 0)) return;
        const run = this.runs.oldest(topic, first);
        // It may be gone already, with its topic's limit or with an earlier look at this record.
        if (run?.first !== first) continue;
        this.choose(topic, first);
        left -= run.size;
        chosen++;
      }
      this.emptied.push(key);
    }
  }

  /** Of the topics that grow, because others need nothing removed. */
  private chooseOfTopics(stored: readonly StoredRun[]): void {
    const { topicMaxBytes } = this.limits;
    const slack = Math.min(topicMaxBytes * SLACK_SHARE, MAX_SLACK_BYTES);
    for (const topic of new Set(stored.map((run) => run.topic))) {
      if (this.due.has(topic)) continue;
      const newest = this.runs.newest(topic);
      const oldest = this.runs.oldest(topic);
      if (!newest || !oldest) continue;
      const excess = newest.offset + newest.size - topicMaxBytes;
      if (excess - oldest.offset <= slack) continue;
      // The newest run stays, however large.
      const kept = this.runs.first(topic, newest.first, ({ offset }) => offset >= excess) ?? newest;
      this.choose(topic, kept.first - 1);
    }
  }

  private choose(topic: string, upTo: Position): void {
    this.due.set(topic, Math.max(upTo, this.due.get(topic) ?? 0));
  }

  /**
   * Topic by topic, because a topic's runs are next to each other.
   *
   * @param leastRuns so many are removed at least, and
   * @param leastBytes so many, of what is due
   * @returns how many bytes of events were removed
   */
  private removeSome(now: number, leastRuns: number, leastBytes: number): number {
    let removed = 0;
    let bytes = 0;
    const isEnough = (): boolean => removed >= leastRuns && bytes >= leastBytes;
    for (const [topic, upTo] of this.due) {
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
    if (removed > 0) this.removedIds.forget(now, 2 * removed);
    return bytes;
  }

  private removeRuns(topic: string, keys: readonly Buffer[], now: number): void {
    const runs = keys.map(readRunKey);
    this.removedIds.keep(topic, runs, now, (start, end) =>
      this.runs.bytesOf(keys.slice(start, end)),
    );
    for (const key of keys) this.runs.remove(key);
    void this.floors.put(topic, runs[runs.length - 1].last);
  }

  private isFrontOver(now: number, heldBytes: number, slackShare: number): boolean {
    if (!this.hasLimit) return false;
    if (!this.front) {
      for (const { key, value } of this.order.getRange({ limit: 1 })) {
        this.front = value;
        this.oldestHeld = readPositionKey(key);
      }
    }
    return this.front !== undefined && this.isOver(this.front, now, heldBytes, slackShare);
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
    const bytes = maxBytes + Math.min(maxBytes * slackShare, MAX_SLACK_BYTES);
    return (maxAge > 0 && storedAt < now - age) || (maxBytes > 0 && heldBytes > bytes);
  }
}

function bytesOf(runs: readonly StoredRun[]): number {
  return runs.reduce((sum, { bytes }) => sum + bytes.length, 0);
}
