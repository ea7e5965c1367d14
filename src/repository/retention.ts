import { MAX_POSITION, type Position } from '../wire/cursor.js';
import type { CommitRecord, Engine, Removal } from './engine.js';
import { AppendError } from './event-repository.js';
import { bytesOf, firstWhere, type HeldRun, type StoredRun } from './stored-run.js';

/** How much a log keeps; 0 means no limit. Over the first three, the oldest events are removed. */
export interface RetentionLimits {
  /** Milliseconds of the log's own time. */
  readonly maxAge: number;
  /** Bytes of stored events, over all topics. */
  readonly maxBytes: number;
  /** Bytes of stored events of each topic. */
  readonly topicMaxBytes: number;
  /** Bytes of stored events, over all topics. New events over it are refused, and none are removed for them. */
  readonly quotaBytes: number;
}

export const KEEP_ALL: RetentionLimits = {
  maxAge: 0,
  maxBytes: 0,
  topicMaxBytes: 0,
  quotaBytes: 0,
};

/** A log looks this often (milliseconds) for events that have become too old. */
export const RETENTION_INTERVAL = 1_000;

/**
 * While events come in, removal begins only when a limit is exceeded by this share of it, or by one of the maxima below.
 * Then many runs of a topic go together, and LMDB writes a few pages for all of them. One by one, each would cost as many
 * pages as storing it. While no events come in, everything over a limit is removed.
 */
const SLACK_SHARE = 1 / 64;
const MAX_SLACK_MILLISECONDS = 1_000;
const MAX_SLACK_BYTES = 8 * 2 ** 20;
/** The most runs that one commit removes, and the most that it looks at, so that it does not take long. */
const MOST_RUNS = 512;
/** chooseFromQuietTopics() looks at this many topics in one call. */
const QUIET_TOPICS = 64;

/** The most that one commit may remove. The number of topics counts, because LMDB writes other pages for each. */
interface RemovalBudget {
  readonly topics: number;
  readonly bytes: number;
}
const UNBOUNDED: RemovalBudget = { topics: Infinity, bytes: Infinity };
/** The least budget of a commit that stores. It grows to twice what the commit stores, so that removal keeps up. */
const LEAST_BUDGET: RemovalBudget = { topics: 64, bytes: 2 ** 20 };
/** If runs are small, MOST_RUNS of them may be less than what comes in. With this backlog, commits wait for removal. */
const MAX_BACKLOG_BYTES = 4 * 2 ** 20;

/** A removal, and the state of Retention once it is made. */
interface RemovalPlan extends Removal {
  /** The topics of which it removes everything chosen. */
  readonly finished: readonly (readonly [topic: string, upTo: Position])[];
  /** True if those are all topics. */
  readonly isComplete: boolean;
  readonly backlogBytes: number;
}

const NO_REMOVAL: RemovalPlan = {
  runs: new Map(),
  commits: [],
  finished: [],
  isComplete: true,
  backlogBytes: 0,
};

/**
 * Decides what a log removes from its old end: a little with each commit, so that no commit takes long. A run is
 *
 * - held: it is in the log.
 * - chosen: it is over a limit. chooseOldest() chooses runs of the oldest commits, and chooseOfTopic() those of a topic
 *   that is over its own limit.
 * - planned: plan() has taken it from the chosen ones for the next commit, within the budget of a commit.
 * - removed: the commit is made, and confirm() has forgotten the run. If the commit fails, the run is still chosen.
 */
export class Retention {
  /** For each topic with chosen runs, the last position to remove. */
  private readonly chosen = new Map<string, Position>();
  /** The records of those commits of which nothing will be held once all chosen runs are removed. */
  private emptied: Position[] = [];
  /** The oldest record that has a run which is not chosen yet, and the index of that run. */
  private front: { record: CommitRecord; next: number } | undefined;
  /** The last record that forgetEmptied() has looked at. */
  private lastRecord: Position | undefined;
  /** The last topic that chooseFromQuietTopics() has looked at. */
  private lastTopic: string | undefined;
  /** True once runs may be removed in another order than that of the commits. */
  private looksForEmptied: boolean;
  /** About how many bytes are over a limit because commits could not remove as much as they stored. */
  private backlogBytes = 0;

  constructor(
    private readonly limits: RetentionLimits,
    private readonly engine: Engine,
  ) {
    this.looksForEmptied = limits.topicMaxBytes > 0;
  }

  /** True if the next commit must wait until the backlog is smaller. */
  get isBehind(): boolean {
    return this.backlogBytes > MAX_BACKLOG_BYTES;
  }

  /** Returns the error of a commit that stores this much, if that exceeds the quota. */
  refusal(storedBytes: number): AppendError | undefined {
    const { quotaBytes } = this.limits;
    const { heldBytes } = this.engine;
    if (quotaBytes === 0 || heldBytes + storedBytes <= quotaBytes) return undefined;
    return new AppendError(
      'storage-full',
      `the log holds ${heldBytes} bytes of events, and ${storedBytes} more are over FEED_QUOTA_BYTES, ${quotaBytes}: ` +
        'raise it, or let FEED_RETENTION_MAX_AGE or FEED_RETENTION_TOPIC_MAX_BYTES keep less',
      { room: quotaBytes - heldBytes },
    );
  }

  /**
   * Returns true if there is something to remove that should not wait for the next append.
   *
   * @param isIdle true if no events come in, so that removal begins without slack
   */
  isDue(now: number, isIdle: boolean): boolean {
    if (this.chosen.size > 0 || this.emptied.length > 0) return true;
    const oldest = this.front?.record ?? this.recordAfter(undefined);
    return this.isOver(oldest, now, this.engine.heldBytes, isIdle ? 0 : SLACK_SHARE);
  }

  /**
   * Chooses runs of topics that are over their limit but get no events, as when the limit was lowered. Each call looks at
   * the next few topics, round and round.
   *
   * @param isIdle as of isDue()
   */
  chooseFromQuietTopics(isIdle: boolean): void {
    if (this.limits.topicMaxBytes === 0) return;
    let looks = 0;
    for (const topic of this.engine.runs.topics(this.lastTopic)) {
      this.chooseOfTopic(topic, isIdle ? 0 : SLACK_SHARE);
      this.lastTopic = topic;
      if (++looks === QUIET_TOPICS) return;
    }
    this.lastTopic = undefined;
  }

  /** Chooses all runs of a topic, whatever the limits. */
  chooseAllOf(topic: string): void {
    const newest = this.engine.runs.newest(topic, MAX_POSITION);
    if (!newest) return;
    this.choose(topic, newest.first);
    this.looksForEmptied = true;
  }

  /** Returns true until all chosen runs of a topic are removed. */
  isChosen(topic: string): boolean {
    return this.chosen.has(topic);
  }

  /** Returns what the next commit removes, beside storing `stored`. */
  plan(stored: readonly StoredRun[], now: number): RemovalPlan {
    const { maxAge, maxBytes, topicMaxBytes } = this.limits;
    const isUnlimited = maxAge === 0 && maxBytes === 0 && topicMaxBytes === 0;
    if (isUnlimited && this.chosen.size === 0) return NO_REMOVAL;
    const storedBytes = bytesOf(stored);
    const heldBytes = this.engine.heldBytes + storedBytes;
    const topics = new Set(stored.map(({ topic }) => topic));
    const isStoring = stored.length > 0;
    const budget: RemovalBudget = isStoring
      ? {
          topics: Math.max(LEAST_BUDGET.topics, 2 * topics.size),
          bytes: Math.max(LEAST_BUDGET.bytes, 2 * storedBytes),
        }
      : UNBOUNDED;
    if (this.chosen.size === 0 && this.emptied.length === 0)
      this.chooseOldest(now, heldBytes, isStoring ? SLACK_SHARE : 0, budget.bytes);
    if (topicMaxBytes > 0) for (const topic of topics) this.chooseOfTopic(topic, SLACK_SHARE);
    return this.take(budget, storedBytes, heldBytes);
  }

  /** Call once the commit of a plan is made. */
  confirm({ finished, isComplete, backlogBytes }: RemovalPlan): void {
    // While the commit was under way, a topic may have been chosen up to a later position.
    for (const [topic, upTo] of finished)
      if (this.chosen.get(topic) === upTo) this.chosen.delete(topic);
    if (isComplete) this.emptied = [];
    this.backlogBytes = backlogBytes;
  }

  /** Chooses runs of the oldest commits until no limit is exceeded, or about `bytes` are chosen. */
  private chooseOldest(now: number, heldBytes: number, slackShare: number, bytes: number): void {
    this.front ??= this.frontAfter(undefined);
    if (!this.isOver(this.front?.record, now, heldBytes, slackShare)) return;
    let left = heldBytes;
    let looks = 0;
    for (let { front } = this; front; front = this.front = this.frontAfter(front.record.first)) {
      if (heldBytes - left >= bytes) return;
      const { record } = front;
      for (; front.next < record.runs.length; front.next++) {
        if (looks++ === MOST_RUNS || !this.isOver(record, now, left, 0)) return;
        const [topic, first] = record.runs[front.next];
        const run = this.engine.runs.oldest(topic, first);
        // The run may have been removed already, because its topic was over its own limit.
        if (run?.first !== first) continue;
        this.choose(topic, first);
        left -= run.size;
      }
      this.emptied.push(record.first);
    }
  }

  /** Chooses the oldest runs of a topic that is over its limit by more than the slack. */
  private chooseOfTopic(topic: string, slackShare: number): void {
    const { topicMaxBytes } = this.limits;
    if (this.chosen.has(topic)) return;
    const newest = this.engine.runs.newest(topic, MAX_POSITION);
    const oldest = this.engine.runs.oldest(topic, 0);
    if (!newest || !oldest) return;
    const end = newest.offset + newest.size;
    if (end - oldest.offset <= withSlack(topicMaxBytes, slackShare)) return;
    const excess = end - topicMaxBytes;
    // The newest run is kept, even if it alone is over the limit.
    const isKept = ({ offset }: HeldRun): boolean => offset >= excess;
    const kept =
      firstWhere((from) => this.engine.runs.oldest(topic, from), newest.first, isKept) ?? newest;
    if (kept.first > oldest.first) this.choose(topic, kept.first - 1);
  }

  private choose(topic: string, upTo: Position): void {
    this.chosen.set(topic, Math.max(upTo, this.chosen.get(topic) ?? 0));
  }

  /** Takes chosen runs for the next commit, topic by topic, because LMDB keeps the runs of a topic together. */
  private take(budget: RemovalBudget, storedBytes: number, heldBytes: number): RemovalPlan {
    const runs = new Map<string, readonly HeldRun[]>();
    const finished: [topic: string, upTo: Position][] = [];
    let count = 0;
    let bytes = 0;
    const isSpent = (): boolean => count >= MOST_RUNS || bytes >= budget.bytes;
    for (const [topic, upTo] of this.chosen) {
      if (runs.size === budget.topics) break;
      const taken: HeldRun[] = [];
      for (const run of this.engine.runs.upTo(topic, upTo)) {
        if (isSpent()) break;
        taken.push(run);
        bytes += run.size;
        count++;
      }
      if (taken.length > 0) runs.set(topic, taken);
      if (isSpent()) break;
      finished.push([topic, upTo]);
    }
    const isComplete = finished.length === this.chosen.size;
    const commits = isComplete ? [...this.emptied] : [];
    const { maxBytes, topicMaxBytes } = this.limits;
    if (count > 0 && this.looksForEmptied) this.forgetEmptied(2 * count, commits);
    const isOverBytes =
      (topicMaxBytes > 0 && !isComplete) ||
      (maxBytes > 0 && heldBytes - bytes > withSlack(maxBytes, SLACK_SHARE));
    const backlog = isOverBytes ? this.backlogBytes + 2 * storedBytes - bytes : 0;
    return { runs, commits, finished, isComplete, backlogBytes: Math.max(0, backlog) };
  }

  /**
   * Adds to `commits` the records of which no run is held any more, among the next few of all records, round and round.
   * With topic limits, or when whole topics are removed, records become empty in any order, and the oldest may never do so.
   * Without this method they would pile up.
   */
  private forgetEmptied(atMost: number, commits: Position[]): void {
    let looks = 0;
    for (const { first, runs } of this.engine.commits.after(this.lastRecord)) {
      if (looks >= atMost) return;
      this.lastRecord = first;
      const isHeld = runs.some(([topic, position]) => {
        looks++;
        return this.engine.runs.oldest(topic, position)?.first === position;
      });
      if (isHeld) continue;
      commits.push(first);
      if (this.front?.record.first === first) this.front = undefined;
    }
    this.lastRecord = undefined;
  }

  private recordAfter(first: Position | undefined): CommitRecord | undefined {
    for (const record of this.engine.commits.after(first)) return record;
    return undefined;
  }

  private frontAfter(
    first: Position | undefined,
  ): { record: CommitRecord; next: number } | undefined {
    const record = this.recordAfter(first);
    return record && { record, next: 0 };
  }

  /** Returns true if the oldest commit that is held is over a limit of the whole log. */
  private isOver(
    record: CommitRecord | undefined,
    now: number,
    heldBytes: number,
    slackShare: number,
  ): boolean {
    if (!record) return false;
    const { maxAge, maxBytes } = this.limits;
    const age = maxAge + Math.min(maxAge * slackShare, MAX_SLACK_MILLISECONDS);
    return (
      (maxAge > 0 && record.storedAt < now - age) ||
      (maxBytes > 0 && heldBytes > withSlack(maxBytes, slackShare))
    );
  }
}

function withSlack(bytes: number, share: number): number {
  return bytes + Math.min(bytes * share, MAX_SLACK_BYTES);
}
