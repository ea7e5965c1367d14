import { MAX_POSITION, type Position } from '../wire/cursor.js';
import type { CommitRecord, Engine, Removal } from './engine.js';
import { AppendError } from './event-repository.js';
import { bytesOf, firstWhere, type HeldRun, type StoredRun } from './stored-run.js';

/** How much a log keeps; 0 for no limit. What is over a limit is removed from the old end, but for the quota's. */
export interface RetentionLimits {
  /** Milliseconds of the log's own time. */
  readonly maxAge: number;
  /** Bytes of stored events, over all topics. */
  readonly maxBytes: number;
  /** Bytes of stored events of each topic. */
  readonly topicMaxBytes: number;
  /** Bytes of stored events, over all topics, that new ones are refused for rather than old ones removed. */
  readonly quotaBytes: number;
}

export const KEEP_ALL: RetentionLimits = {
  maxAge: 0,
  maxBytes: 0,
  topicMaxBytes: 0,
  quotaBytes: 0,
};

/** How often (milliseconds) an idle log looks for events that have become too old. */
export const RETENTION_INTERVAL = 1_000;

/**
 * While events come in, removal begins once a limit is exceeded by this share of it, or by the most below: then many
 * runs of each topic are removed together, which costs LMDB a few pages; one by one, each costs as many as it took to
 * store. While nothing comes in, everything over a limit goes.
 */
const SLACK_SHARE = 1 / 64;
const MAX_SLACK_MILLISECONDS = 1_000;
const MAX_SLACK_BYTES = 8 * 2 ** 20;
/** No commit removes more runs than this, or looks at more for removal, so that nobody waits long for it. */
const MOST_RUNS = 512;
/** How many topics that get nothing new are looked at together: what they hold was stored under another limit. */
const QUIET_TOPICS = 64;

/** What one commit may remove: from so many topics, because each costs pages of its own, and about so many bytes. */
interface RemovalBudget {
  readonly topics: number;
  readonly bytes: number;
}
const UNBOUNDED: RemovalBudget = { topics: Infinity, bytes: Infinity };
/** The least budget of a commit that stores; more, if twice of what it stores is more: so removal keeps up. */
const LEAST_BUDGET: RemovalBudget = { topics: 64, bytes: 2 ** 20 };
/** Runs may be so small that MOST_RUNS of them are less than what comes in. With this backlog, commits wait for it. */
const MAX_BACKLOG_BYTES = 4 * 2 ** 20;

/** A removal with what becomes of the choice once it is done. */
interface RemovalPlan extends Removal {
  /** The topics of which all that was chosen is removed with it, and whether those are all topics. */
  readonly finished: readonly string[];
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
 * Decides what a log removes from its old end: some with each commit, so that no commit takes long.
 *
 * Runs are first chosen (`chosen`: by topic, the last position to remove), oldest commit first, or of a topic that is
 * over its own limit; plan() then takes as many of the chosen as one commit may remove, and confirm() forgets those
 * once they are gone. If the commit fails, they stay chosen, and the next plan() takes them again.
 */
export class Retention {
  private readonly chosen = new Map<string, Position>();
  /** The records of commits of which nothing will be held once all that is chosen is removed. */
  private emptied: Position[] = [];
  /** The oldest record of which not every run is chosen yet, and the index of the next one to look at. */
  private front: { record: CommitRecord; next: number } | undefined;
  /** The last record that forgetEmptied() has looked at. */
  private lastRecord: Position | undefined;
  /** The last topic that chooseFromQuietTopics() has looked at. */
  private lastTopic: string | undefined;
  private backlogBytes = 0;

  constructor(
    private readonly limits: RetentionLimits,
    private readonly engine: Engine,
  ) {}

  /** True if the next commit must wait until more is removed. */
  get isBehind(): boolean {
    return this.backlogBytes > MAX_BACKLOG_BYTES;
  }

  /** Returns what a commit of so many bytes is refused with, if what is held would exceed the quota by it. */
  refusal(storedBytes: number): AppendError | undefined {
    const { quotaBytes } = this.limits;
    const { heldBytes } = this.engine;
    if (quotaBytes === 0 || heldBytes + storedBytes <= quotaBytes) return undefined;
    return new AppendError(
      'storage-full',
      `the log holds ${heldBytes} bytes of events, and ${storedBytes} more are over FEED_QUOTA_BYTES, ${quotaBytes}: ` +
        'raise it, or let FEED_RETENTION_MAX_AGE or FEED_RETENTION_TOPIC_MAX_BYTES keep less',
    );
  }

  /**
   * True if a commit is to be made for removals though nothing may be stored.
   *
   * @param isIdle true: whatever is over a limit is to go; false: only what is over it by the slack
   */
  isDue(now: number, isIdle: boolean): boolean {
    if (this.chosen.size > 0 || this.emptied.length > 0) return true;
    const oldest = this.front?.record ?? this.recordAfter(undefined);
    return this.isOver(oldest, now, this.engine.heldBytes, isIdle ? 0 : SLACK_SHARE);
  }

  /** Chooses what is over the limit in some topics that get nothing new: each call the next ones, round and round. */
  chooseFromQuietTopics(): void {
    if (this.limits.topicMaxBytes === 0) return;
    let looks = 0;
    for (const topic of this.engine.runs.topics(this.lastTopic)) {
      this.chooseOfTopic(topic, 0);
      this.lastTopic = topic;
      if (++looks === QUIET_TOPICS) return;
    }
    this.lastTopic = undefined;
  }

  /** Returns what the next commit is to remove beside what it stores. */
  plan(stored: readonly StoredRun[], now: number): RemovalPlan {
    const { maxAge, maxBytes, topicMaxBytes } = this.limits;
    if (maxAge === 0 && maxBytes === 0 && topicMaxBytes === 0) return NO_REMOVAL;
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

  /** Call when the commit of a plan is made. */
  confirm({ finished, isComplete, backlogBytes }: RemovalPlan): void {
    for (const topic of finished) this.chosen.delete(topic);
    if (isComplete) this.emptied = [];
    this.backlogBytes = backlogBytes;
  }

  /** Chooses runs of the oldest commits, up to about as many bytes as one commit may remove. */
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
        // It may be gone already, with its topic's limit.
        if (run?.first !== first) continue;
        this.choose(topic, first);
        left -= run.size;
      }
      this.emptied.push(record.first);
    }
  }

  private chooseOfTopic(topic: string, slackShare: number): void {
    const { topicMaxBytes } = this.limits;
    if (this.chosen.has(topic)) return;
    const newest = this.engine.runs.newest(topic, MAX_POSITION);
    const oldest = this.engine.runs.oldest(topic, 0);
    if (!newest || !oldest) return;
    const end = newest.offset + newest.size;
    if (end - oldest.offset <= withSlack(topicMaxBytes, slackShare)) return;
    const excess = end - topicMaxBytes;
    // The newest run stays, however large.
    const isKept = ({ offset }: HeldRun): boolean => offset >= excess;
    const kept = firstWhere(this.engine.runs, topic, newest.first, isKept) ?? newest;
    this.choose(topic, kept.first - 1);
  }

  private choose(topic: string, upTo: Position): void {
    this.chosen.set(topic, Math.max(upTo, this.chosen.get(topic) ?? 0));
  }

  /** Takes from what is chosen topic by topic, because a topic's runs are next to each other. */
  private take(budget: RemovalBudget, storedBytes: number, heldBytes: number): RemovalPlan {
    const runs = new Map<string, readonly HeldRun[]>();
    const finished: string[] = [];
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
      finished.push(topic);
    }
    const isComplete = finished.length === this.chosen.size;
    const commits = isComplete ? [...this.emptied] : [];
    const { maxBytes, topicMaxBytes } = this.limits;
    if (count > 0 && topicMaxBytes > 0) this.forgetEmptied(2 * count, commits);
    const isOverBytes =
      (topicMaxBytes > 0 && !isComplete) ||
      (maxBytes > 0 && heldBytes - bytes > withSlack(maxBytes, SLACK_SHARE));
    const backlog = isOverBytes ? this.backlogBytes + 2 * storedBytes - bytes : 0;
    return { runs, commits, finished, isComplete, backlogBytes: Math.max(0, backlog) };
  }

  /**
   * Topic limits empty commits in any order, and the oldest may be held for ever: adds to `commits` those of which
   * nothing is held among the next few of all, round and round, so that there are never many more than hold something.
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

  /** True if a commit, the oldest that is held, is over a limit of the whole log. */
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
