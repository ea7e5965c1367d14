import type { CheckedEvents, TopicEvents } from '../wire/check-events.js';
import { MAX_POSITION, type Position, stampCursors } from '../wire/cursor.js';
import { RUN_BYTES } from '../wire/event-batch.js';
import { allocate, concatenate } from '../wire/slab.js';
import type { Commit } from './commit.js';
import { Deduplication } from './deduplication.js';
import type { Epochs } from './epochs.js';
import { AppendError, type Appended, type EventWriter } from './event-repository.js';
import { LogReport } from './log-report.js';
import { NO_DEDUP, RecentIds } from './recent-ids.js';
import type { StoredRun } from './stored-run.js';
import type { Refusals, TopicLimit } from './topic-limit.js';

/** Where the queue continues: after the head, and not before the time of the last commit. */
export interface QueueStart {
  /** The current ones: a shared log may begin another epoch. */
  readonly epochs: Epochs;
  readonly head: Position;
  readonly storedAt: number;
  /** The log's time, in milliseconds. */
  readonly now: () => number;
}

/** A log to which other processes write, too. The queue then asks it where each commit begins. */
export interface SharedLog {
  /**
   * Called before a commit is built. Resolves with the log's last position and time, once it knows what others stored
   * before the commit. From then until settled(), the log takes over nothing that others store.
   *
   * @throws AppendError
   */
  begin(): Promise<{ readonly head: Position; readonly storedAt: number }>;
  /** Called once that commit is published, has failed, or is to be built again. */
  settled(): void;
  /** Returns the position of the first event of a run that follows a position. */
  nextRun(after: Position): Position;
  /** A commit takes appends until they have this many bytes. */
  readonly commitBytes: number;
  /** A commit has at most this many runs. It is not less than MAX_GROUPS of check-events.ts. */
  readonly maxRuns: number;
}

/** Thrown by `commit` of a shared log: it stored nothing, because others stored something first. It is built again. */
export class OvertakenError extends Error {
  /** @param sequence where they stored it, as that log counts: its next begin() waits for that; 0 if it waits for nothing */
  constructor(readonly sequence = 0) {
    super();
  }
}

/**
 * Commits start at least this far apart (milliseconds) under load, so that many events share a commit's own cost and
 * that of waking every watch (docs/performance.md, "Group commit"). An append to an idle log does not wait for it.
 */
const COMMIT_INTERVAL = 4;
/** room() holds a writer back while it has this many bytes, or all writers together have, that are not committed yet. */
export interface QueueBytes {
  readonly ofWriter: number;
  readonly inAll: number;
}

export const QUEUE_BYTES: QueueBytes = { ofWriter: 1024 * 1024, inAll: 16 * 1024 * 1024 };

export interface QueueLimits {
  readonly bytes: QueueBytes;
  /** Refuses appends that would make a log hold too many topics. */
  readonly topics: TopicLimit;
}

const NO_LIMITS: QueueLimits = { bytes: QUEUE_BYTES, topics: { refusals: () => undefined } };
/** The limits of a commit of a log that only this process writes to. */
const EMBEDDED = { commitBytes: 8 * 1024 * 1024, maxRuns: Infinity };

/**
 * An append that is not committed yet. `last` and `duplicates` are its answer, once the commit is built, and `newBytes` is what the
 * commit has of it.
 */
interface Pending {
  readonly writer: QueueWriter;
  readonly events: CheckedEvents;
  /** When it came (performance.now()). */
  readonly cameAt: number;
  readonly resolve: (appended: Appended) => void;
  readonly reject: (error: AppendError) => void;
  last: Position;
  duplicates: number;
  newBytes: number;
}

interface CommitRequest {
  readonly resolve: () => void;
  readonly reject: (error: AppendError) => void;
}

/**
 * The queue of all appends of a log. It gives out positions, stamps cursors, and makes commits, one at a time:
 *
 * - idle: nothing waits. An append or a request schedules a commit.
 * - scheduled: a timer or immediate will call commitWaiting(), which takes what waits and begins the commit.
 * - committing: appends wait for the next commit. If others have stored something first, the commit is rolled back and
 *   built again. When it is durable or has failed, the queue schedules the next one if something waits, or else becomes
 *   idle.
 * - closed: appends and requests are refused. close() gets here once no append waits or is being committed.
 */
export class AppendQueue {
  /** The last position given out. It is beyond the durable head during a commit. */
  private position: Position;
  private storedAt: number;
  private waiting: Pending[] = [];
  private queuedBytes = 0;
  private committing = false;
  private scheduled = false;
  /** The calls of requestCommit() that wait for the next commit. */
  private commitRequests: CommitRequest[] = [];
  private lastCommit = 0;
  private closed: AppendError | undefined;
  private closing: Promise<void> | undefined;
  /** Set by end(): called once no append waits or is being committed. */
  private onDrained: (() => void) | undefined;
  private roomWaiters: (() => void)[] = [];

  constructor(
    private readonly start: QueueStart,
    /** Makes all runs of a commit durable, or none. */
    private readonly commit: (commit: Commit) => Promise<void>,
    /** Called with the runs of each commit, in order, once they are durable. What it returns, if anything, resolves once watches can read them. */
    private readonly publish: (runs: readonly StoredRun[]) => Promise<void> | void,
    private readonly deduplication = new Deduplication(new RecentIds(NO_DEDUP), () => undefined),
    private readonly shared?: SharedLog,
    private readonly limits = NO_LIMITS,
    private readonly report = new LogReport(),
  ) {
    this.position = start.head;
    this.storedAt = start.storedAt;
  }

  openWriter(): EventWriter {
    return new QueueWriter(this);
  }

  /** Commits what waits, then closes the queue. Another call settles as the first one does. */
  close(): Promise<void> {
    return (this.closing ??= this.end());
  }

  private async end(): Promise<void> {
    const close = (): void => void (this.closed = new AppendError('refused', 'the log is closed'));
    if (!this.committing && this.waiting.length === 0) return close();
    await new Promise<void>((resolve) => {
      // It closes before it resolves: an append between the two would never be committed.
      this.onDrained = () => resolve(close());
    });
  }

  /**
   * Makes a commit even if no append waits, because it may remove something. Resolves when it is durable. If the appends of
   * that commit have no room, another one is made without them.
   */
  requestCommit(): Promise<void> {
    if (this.closed) return Promise.reject(this.closed);
    return new Promise((resolve, reject) => {
      this.commitRequests.push({ resolve, reject });
      this.schedule();
    });
  }

  append(writer: QueueWriter, events: CheckedEvents): Promise<Appended> {
    if (this.closed) return Promise.reject(this.closed);
    const cameAt = performance.now();
    return new Promise((resolve, reject) => {
      this.waiting.push({
        writer,
        events,
        cameAt,
        resolve,
        reject,
        last: 0,
        duplicates: 0,
        newBytes: 0,
      });
      writer.queuedBytes += events.bytes;
      this.queuedBytes += events.bytes;
      this.schedule();
    });
  }

  room(writer: QueueWriter): Promise<void> | undefined {
    if (!this.isFull(writer)) return undefined;
    return this.waitForRoom(writer);
  }

  private isFull(writer: QueueWriter): boolean {
    const { ofWriter, inAll } = this.limits.bytes;
    return (
      writer.failed === undefined &&
      (writer.queuedBytes >= ofWriter || (this.queuedBytes >= inAll && writer.queuedBytes > 0))
    );
  }

  private async waitForRoom(writer: QueueWriter): Promise<void> {
    do await new Promise<void>((resolve) => this.roomWaiters.push(resolve));
    while (this.isFull(writer));
  }

  private schedule(): void {
    if (this.scheduled || this.committing) return;
    if (this.waiting.length === 0 && this.commitRequests.length === 0) return;
    this.scheduled = true;
    const since = performance.now() - this.lastCommit;
    // The immediate runs after the other streams have appended what they got in this turn of the event loop.
    if (since >= COMMIT_INTERVAL) setImmediate(this.commitWaiting);
    else setTimeout(this.commitWaiting, COMMIT_INTERVAL - since);
  }

  private readonly commitWaiting = (): void => {
    this.scheduled = false;
    const group = this.takeGroup();
    const requests = this.commitRequests;
    if (this.closed) {
      for (const { reject } of requests) reject(this.closed);
      return;
    }
    if (group.length === 0 && requests.length === 0) return this.tellIfDrained();
    this.committing = true;
    this.commitRequests = [];
    this.lastCommit = performance.now();
    void this.commitGroup(group, requests);
  };

  private async commitGroup(
    taken: readonly Pending[],
    requests: readonly CommitRequest[],
  ): Promise<void> {
    let group = taken;
    const refused = new Map<Pending, AppendError>();
    let full: AppendError | undefined;
    let runs: readonly StoredRun[];
    try {
      const refusals = this.limits.topics.refusals(group.map(({ events }) => events));
      if (refusals) group = withoutRefused(group, await refusals, refused);
      for (;;) {
        try {
          runs = await this.store(group, requests.length > 0);
          break;
        } catch (error) {
          if (!(error instanceof AppendError && error.reason === 'storage-full')) throw error;
          // The commit is built again with the appends that fit. A requested commit is made even without any, because it may make room.
          const kept = withoutRefused(group, withoutRoom(group, error), refused);
          if (kept.length === group.length || kept.length + requests.length === 0) throw error;
          group = kept;
          full = error;
          this.shared?.settled();
        }
      }
    } catch (cause) {
      const error = cause instanceof AppendError ? cause : refusal(cause);
      this.report.failed(error.reason, error.message);
      for (const pending of taken) this.fail(pending, refused.get(pending) ?? error);
      for (const { reject } of requests) reject(error);
      this.committed();
      return;
    }
    if (full) this.report.failed(full.reason, full.message);
    else if (runs.length > 0) this.report.hasRoom();
    if (runs.length > 0) {
      this.report.newestCameAt = group[0].cameAt;
      const shown = this.publish(runs);
      if (shown) await shown;
    }
    const now = performance.now();
    for (const pending of group) {
      this.report.appendSeconds.observe((now - pending.cameAt) / 1000);
      this.release(pending);
      const last = this.start.epochs.cursorAt(pending.last);
      pending.resolve({ last, duplicates: pending.duplicates });
    }
    // The appends of a writer settle in order, so that none that is stored settles after one that is refused.
    for (const pending of taken) {
      const error = refused.get(pending);
      if (error) this.fail(pending, error);
    }
    for (const { resolve } of requests) resolve();
    this.committed();
  }

  /**
   * Builds a commit and makes it durable. Returns its runs.
   *
   * @param isRequested true if it is made even if it stores nothing
   */
  private async store(
    group: readonly Pending[],
    isRequested: boolean,
  ): Promise<readonly StoredRun[]> {
    for (;;) {
      if (this.shared) {
        const { head, storedAt } = await this.shared.begin();
        this.position = head;
        this.storedAt = storedAt;
      }
      let isStored = false;
      try {
        const commit = this.buildCommit(group);
        // If every event is a duplicate, there is nothing to commit.
        if (commit.runs.length > 0 || isRequested) await this.timed(commit);
        isStored = true;
        return commit.runs;
      } catch (error) {
        if (!(error instanceof OvertakenError)) throw error;
      } finally {
        this.deduplication.end(isStored);
      }
      this.shared?.settled();
    }
  }

  private async timed(commit: Commit): Promise<void> {
    const startedAt = performance.now();
    await this.commit(commit);
    this.report.committed(performance.now() - startedAt, commit.runs);
  }

  private committed(): void {
    this.committing = false;
    this.shared?.settled();
    const waiters = this.roomWaiters;
    this.roomWaiters = [];
    for (const resolve of waiters) resolve();
    this.schedule();
    this.tellIfDrained();
  }

  private tellIfDrained(): void {
    if (!this.committing && this.waiting.length === 0) this.onDrained?.();
  }

  /** Takes the appends of the next commit. It rejects an append of a writer that has failed before. */
  private takeGroup(): Pending[] {
    const group: Pending[] = [];
    const { commitBytes, maxRuns } = this.shared ?? EMBEDDED;
    let bytes = 0;
    let runs = 0;
    let taken = 0;
    for (const pending of this.waiting) {
      if (pending.writer.failed) {
        taken++;
        this.fail(pending, pending.writer.failed);
        continue;
      }
      runs += pending.events.topics.length;
      if (bytes >= commitBytes || runs > maxRuns) break;
      taken++;
      group.push(pending);
      bytes += pending.events.bytes;
    }
    this.waiting = taken === this.waiting.length ? [] : this.waiting.slice(taken);
    return group;
  }

  private fail(pending: Pending, error: AppendError): void {
    pending.writer.failed ??= error;
    this.release(pending);
    pending.reject(error);
  }

  private release(pending: Pending): void {
    pending.writer.queuedBytes -= pending.events.bytes;
    this.queuedBytes -= pending.events.bytes;
  }

  /** Builds the runs of a commit topic by topic, so that the positions of each run are consecutive. */
  private buildCommit(group: readonly Pending[]): Commit {
    const storedAt = Math.max(this.storedAt, this.start.now());
    this.storedAt = storedAt;
    this.deduplication.begin(storedAt);
    for (const pending of group) pending.duplicates = pending.newBytes = 0;
    const nextRun = (): Position =>
      this.shared ? this.shared.nextRun(this.position) : this.position + 1;
    const byTopic = new Map<string, { events: TopicEvents; pending: Pending; isLast: boolean }[]>();
    for (const pending of group) {
      pending.events.topics.forEach((events, i) => {
        const part = { events, pending, isLast: i === pending.events.lastTopic };
        const parts = byTopic.get(events.topic);
        if (parts) parts.push(part);
        else byTopic.set(events.topic, [part]);
      });
    }
    const runs: StoredRun[] = [];
    const ids: Uint32Array[] = [];
    for (const [topic, parts] of byTopic) {
      let buffers: Buffer[] = [];
      let bytes = 0;
      let count = 0;
      let first = nextRun();
      const endRun = (): void => {
        this.position = first + count - 1;
        if (this.position > MAX_POSITION) throw new Error('the log has no positions left');
        const all = buffers.length === 1 ? buffers[0] : concatenate(buffers, allocate(bytes));
        stampCursors(all, this.start.epochs.current, first);
        runs.push({ topic, first, last: this.position, count, bytes: all, storedAt });
        buffers = [];
        bytes = 0;
        count = 0;
        first = nextRun();
      };
      for (const { events, pending, isLast } of parts) {
        if (count > 0 && bytes + events.bytes.length > RUN_BYTES) endRun();
        const kept = this.deduplication.keep(events, first + count);
        pending.duplicates += kept.duplicates;
        if (isLast) pending.last = kept.last;
        if (kept.events.count === 0) continue;
        pending.newBytes += kept.events.bytes.length;
        buffers.push(kept.events.bytes);
        ids.push(kept.events.ids);
        bytes += kept.events.bytes.length;
        count += kept.events.count;
      }
      if (count > 0) endRun();
    }
    return { runs, ids };
  }
}

class QueueWriter implements EventWriter {
  failed: AppendError | undefined;
  queuedBytes = 0;

  constructor(private readonly queue: AppendQueue) {}

  append(events: CheckedEvents): Promise<Appended> {
    return this.queue.append(this, events);
  }

  room(): Promise<void> | undefined {
    return this.queue.room(this);
  }
}

/** Takes from a commit the appends that are refused, and all that their writers appended after them. Returns the others. */
function withoutRefused(
  group: readonly Pending[],
  refusals: Refusals,
  refused: Map<Pending, AppendError>,
): readonly Pending[] {
  const kept: Pending[] = [];
  const failed = new Map<EventWriter, AppendError>();
  for (const pending of group) {
    const error = failed.get(pending.writer) ?? refusals.get(pending.events);
    if (!error) {
      kept.push(pending);
      continue;
    }
    failed.set(pending.writer, error);
    refused.set(pending, error);
  }
  return kept;
}

/** Returns the appends for which a commit has no room, where it has some for others: in their order, as many stay as fit. */
function withoutRoom(group: readonly Pending[], error: AppendError): Refusals {
  const refusals = new Map<CheckedEvents, AppendError>();
  let room = error.room ?? 0;
  for (const { events, newBytes } of group) {
    // Nothing is stored of an append of duplicates.
    if (newBytes > 0 && newBytes > room) refusals.set(events, error);
    else room -= newBytes;
  }
  return refusals;
}

function refusal(cause: unknown): AppendError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new AppendError('refused', why, { cause });
}
