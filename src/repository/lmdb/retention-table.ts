import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import type { StoredRun } from '../append-queue.js';
import type { RetentionLimits } from '../retention.js';
import type { RemovedIds } from './removed-ids.js';
import { positionKey, type RunKey } from './run-key.js';
import type { RunTable } from './run-table.js';

/** What a commit stored, for the day it becomes too old: the topic and first position of each run. */
export interface CommitRecord {
  readonly storedAt: number;
  readonly runs: readonly (readonly [topic: string, first: Position])[];
}

/**
 * A commit removes at most so many runs, and twice as many as it stores: never so much at a time that writers
 * notice, and always more than comes in.
 */
const REMOVED_AT_ONCE = 8;

/** Removes events from the old end of the log, a few with each commit, in the same transaction. */
export class RetentionTable {
  /** The oldest commit of which something is held, so that it is not read again for every commit. */
  private front: CommitRecord | undefined;

  constructor(
    /** Commits in the order of their positions. */
    private readonly order: Database<CommitRecord, Buffer>,
    /** Of each topic that lost events, the position of the newest removed. */
    private readonly floors: Database<Position, string>,
    private readonly runs: RunTable,
    private readonly removedIds: RemovedIds,
    private readonly limits: RetentionLimits,
  ) {}

  floor(topic: string): Position {
    return this.floors.get(topic) ?? 0;
  }

  /** Whether something is to be removed though nothing comes in. */
  isDue(now: number, heldBytes: number): boolean {
    if (this.limits.maxAge === 0 && this.limits.maxBytes === 0) return false;
    if (!this.front) for (const { value } of this.order.getRange({ limit: 1 })) this.front = value;
    return this.front !== undefined && this.isOver(this.front, now, heldBytes);
  }

  /**
   * Notes what a commit stores, and removes what is over the limits. To be called within its batch.
   *
   * @returns how many bytes of events were removed
   */
  keepWithin(stored: readonly StoredRun[], now: number, heldBytes: number): number {
    if (stored.length > 0) {
      const runs = stored.map(({ topic, first }) => [topic, first] as const);
      void this.order.put(positionKey(stored[0].first), { storedAt: stored[0].storedAt, runs });
    }
    const atMost = Math.max(REMOVED_AT_ONCE, 2 * stored.length);
    const removal = new Removal(this.runs, this.removedIds, now, atMost);
    if (this.isDue(now, heldBytes)) this.removeOldest(removal, now, heldBytes);
    if (this.limits.topicMaxBytes > 0) this.removeOfTopics(removal, stored);
    for (const [topic, floor] of removal.floors) void this.floors.put(topic, floor);
    if (removal.bytes > 0) this.removedIds.forget(now, 2 * atMost);
    return removal.bytes;
  }

  private removeOldest(removal: Removal, now: number, heldBytes: number): void {
    this.front = undefined;
    for (const { key, value } of this.order.getRange()) {
      for (const [topic, first] of value.runs) {
        if (removal.isDone || !this.isOver(value, now, heldBytes - removal.bytes)) return;
        const run = this.runs.oldest(topic, first);
        // It may be gone already, with its topic's limit or with an earlier look at this record.
        if (run?.first === first) removal.remove(topic, run);
      }
      void this.order.remove(key);
    }
  }

  /** Of the topics that grow, because others need nothing removed. */
  private removeOfTopics(removal: Removal, stored: readonly StoredRun[]): void {
    for (const topic of new Set(stored.map((run) => run.topic))) {
      const newest = this.runs.newest(topic);
      if (!newest) continue;
      const end = newest.offset + newest.size;
      for (let position = removal.floors.get(topic) ?? 0; !removal.isDone;) {
        const run = this.runs.oldest(topic, position);
        // The newest run stays, however large.
        if (!run || run.first === newest.first || end - run.offset <= this.limits.topicMaxBytes)
          break;
        removal.remove(topic, run);
        position = run.last + 1;
      }
    }
  }

  private isOver({ storedAt }: CommitRecord, now: number, heldBytes: number): boolean {
    const { maxAge, maxBytes } = this.limits;
    return (maxAge > 0 && storedAt < now - maxAge) || (maxBytes > 0 && heldBytes > maxBytes);
  }
}

/** What one transaction removes. */
class Removal {
  readonly floors = new Map<string, Position>();
  bytes = 0;
  private count = 0;

  constructor(
    private readonly runs: RunTable,
    private readonly removedIds: RemovedIds,
    private readonly now: number,
    private readonly atMost: number,
  ) {}

  get isDone(): boolean {
    return this.count >= this.atMost;
  }

  remove(topic: string, run: RunKey): void {
    this.removedIds.keep(topic, run, this.now, () => this.runs.bytesOf(topic, run));
    this.runs.remove(topic, run);
    this.floors.set(topic, Math.max(run.last, this.floors.get(topic) ?? 0));
    this.bytes += run.size;
    this.count++;
  }
}
