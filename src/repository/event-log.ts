import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Cursor, MAX_POSITION, type Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import type { TopicSet } from '../wire/topic-set.js';
import type { Notices } from '../telemetry/notices.js';
import { AppendQueue, QUEUE_BYTES, type QueueBytes } from './append-queue.js';
import { type Commit, NOTHING_TO_STORE } from './commit.js';
import { Deduplication, StoredIds } from './deduplication.js';
import type { Engine, Removal } from './engine.js';
import {
  type AppendError,
  type Backup,
  BackupUnsupportedError,
  type CursorPlace,
  type DedupWindow,
  type Durability,
  EventRepository,
  EventsRemovedError,
  type EventWriter,
  type HeldTopic,
  type LogStatus,
  type StoredAt,
} from './event-repository.js';
import { MOST_CHANGED } from './followed-sets.js';
import { type LogClock, logClock } from './log-clock.js';
import { LogReport } from './log-report.js';
import { askOnceAtATime } from './promptly.js';
import { NO_DEDUP, RecentIds } from './recent-ids.js';
import { KEEP_ALL, Retention, RETENTION_INTERVAL, type RetentionLimits } from './retention.js';
import { forgetRemovals, noteRemovals, type ReadLog, SetReader } from './set-reader.js';
import { bytesOf, firstWhere, type HeldRun } from './stored-run.js';
import { Tail } from './tail.js';
import { OwnTopicLimit } from './topic-limit.js';
import type { TopicReader } from './topic-reader.js';

export interface LogOptions {
  /** Deduplication is off if either number is 0. */
  readonly dedup?: DedupWindow;
  readonly retention?: RetentionLimits;
  /** The most topics that may hold events; no limit by default. */
  readonly maxTopics?: number;
  readonly queueBytes?: QueueBytes;
  readonly clock?: LogClock;
  /** Receives messages for the operator. */
  readonly notices?: Pick<Notices, 'info' | 'error'>;
}

/** status() looks at about this many runs for the oldest event, and goes on from there the next time. */
const MOST_LOOKS = 1_024;

/** Bytes of the newest events that are kept in memory for all watchers together. */
const TAIL_BYTES = 32 * 2 ** 20;

/**
 * Keeps the promises of EventRepository for a log whose only writer is this process, on any engine. Appends go through a
 * queue into commits (append-queue.ts), which also remove what retention chose (retention.ts). Reads of new events are
 * answered from the tail, and all others from the engine.
 */
export class EventLog extends EventRepository implements ReadLog {
  override readonly durability: Durability;
  override readonly location: string;
  override readonly report: LogReport;

  readonly clock: LogClock;
  private readonly recent: RecentIds;
  private readonly retention: Retention;
  readonly tail: Tail;
  private readonly queue: AppendQueue;
  private readonly sweep: NodeJS.Timeout;
  private readonly disk = askOnceAtATime(() => this.engine.disk());
  private durableHead: Position;
  /** When the event at the head was stored, in milliseconds of the log's time. */
  private headStoredAt: number;
  private headAtSweep: Position;
  private isRemoving = false;
  removing: Removal | undefined;
  /** Nothing that commits up to this position have stored is held any more. */
  private emptyUpTo: Position = 0;
  private closing: Promise<void> | undefined;
  private listener: (topics: Iterable<string>) => void = () => {};

  constructor(
    readonly engine: Engine,
    {
      dedup = NO_DEDUP,
      retention = KEEP_ALL,
      maxTopics = Infinity,
      queueBytes = QUEUE_BYTES,
      clock = logClock(engine.start),
      notices,
    }: LogOptions = {},
  ) {
    super();
    const { epochs, head, storedAt } = engine.start;
    this.durability = engine.durability;
    const window = dedup.ids === 0 || dedup.milliseconds === 0 ? NO_DEDUP : dedup;
    this.location = engine.location;
    this.clock = clock;
    this.report = new LogReport(notices);
    this.headAtSweep = this.durableHead = head;
    this.headStoredAt = storedAt;
    this.recent = new RecentIds(window);
    this.recent.recall(engine.newestIds(), clock.now());
    this.retention = new Retention(retention, engine);
    this.tail = new Tail(head, TAIL_BYTES);
    const storedIds = new StoredIds(this);
    this.queue = new AppendQueue(
      { epochs, head, storedAt, now: clock.now },
      (commit) => this.commit(window === NO_DEDUP ? { runs: commit.runs, ids: [] } : commit),
      (runs) => this.publish(runs),
      new Deduplication(this.recent, (topic, position) =>
        position > engine.floor(topic)
          ? storedIds.at(topic, position)
          : engine.removedId(topic, position),
      ),
      undefined,
      { bytes: queueBytes, topics: new OwnTopicLimit(maxTopics, this) },
      this.report,
    );
    this.sweep = setInterval(() => void this.removeDue(), RETENTION_INTERVAL).unref();
  }

  override get dedupWindow(): DedupWindow {
    return this.recent.current(this.clock.now());
  }

  override get head(): Position {
    return this.durableHead;
  }

  override cursorAt(position: Position): Cursor {
    return this.engine.start.epochs.cursorAt(position);
  }

  override locate(cursor: Cursor): CursorPlace {
    return this.engine.start.epochs.locate(cursor, this.head);
  }

  override openWriter(): EventWriter {
    return this.queue.openWriter();
  }

  override read(topic: string, after: Position, maxBytes: number): EventBatch | undefined {
    if (after >= this.tail.horizon) return this.tail.read(topic, after, maxBytes);
    if (after < this.engine.floor(topic)) throw new EventsRemovedError();
    return this.engine.runs.read(topic, after, this.head, maxBytes);
  }

  override floor(topic: string): Promise<Position> {
    return Promise.resolve(this.engine.floor(topic));
  }

  override positionBefore(topic: string, since: number): Promise<Position | undefined> {
    const storedSince = this.clock.since(since);
    const isSince = ({ storedAt }: HeldRun): boolean => storedAt >= storedSince;
    const run = firstWhere((from) => this.engine.runs.oldest(topic, from), this.head, isSince);
    return Promise.resolve(run && run.first - 1);
  }

  override positionBeforeLast(topic: string, count: number, head: Position): Promise<Position> {
    const newest = this.engine.runs.newest(topic, head);
    if (!newest) return this.floor(topic);
    // The ordinal of the first event wanted. If it is not held any more, firstWhere() finds the oldest run.
    const wanted = newest.ordinal + newest.count - count;
    const isWanted = (held: HeldRun): boolean => held.ordinal + held.count > wanted;
    const run =
      firstWhere((from) => this.engine.runs.oldest(topic, from), head, isWanted) ?? newest;
    return Promise.resolve(run.first - 1 + Math.max(0, wanted - run.ordinal));
  }

  override topics(
    prefix: string,
    after: string | undefined,
    limit: number,
  ): Promise<readonly string[]> {
    return Promise.resolve(take(this.engine.runs.topics(after, prefix), limit));
  }

  protected override setReader(topics: TopicSet): TopicReader {
    return new SetReader(this, topics);
  }

  /** It looks at the oldest and the newest run, however many there are. */
  override heldOf(topic: string): Promise<HeldTopic | undefined> {
    const { runs } = this.engine;
    const newest = runs.newest(topic, this.head);
    const oldest = newest && runs.oldest(topic, 0);
    if (!oldest) return Promise.resolve(undefined);
    return Promise.resolve({
      events: newest.ordinal + newest.count - oldest.ordinal,
      bytes: newest.offset + newest.size - oldest.offset,
      oldest: { position: oldest.first, time: oldest.storedAt },
      newest: { position: newest.last, time: newest.storedAt },
    });
  }

  override countAfter(topic: string, after: Position): Promise<number> {
    const { runs } = this.engine;
    const newest = runs.newest(topic, this.head);
    if (!newest || newest.last <= after) return Promise.resolve(0);
    const at = runs.newest(topic, after);
    const next =
      at && at.last > after
        ? at.ordinal + (after - at.first + 1)
        : runs.oldest(topic, after + 1)!.ordinal;
    return Promise.resolve(newest.ordinal + newest.count - next);
  }

  /** The number of topics that hold events. */
  get topicCount(): number {
    return this.engine.topicCount;
  }

  holdsTopic(topic: string): boolean {
    return this.engine.runs.newest(topic, MAX_POSITION) !== undefined;
  }

  override async removeTopic(topic: string): Promise<void> {
    const newest = this.engine.runs.newest(topic, MAX_POSITION);
    if (!newest) return;
    this.retention.chooseAllOf(topic);
    while (this.retention.isChosen(topic)) await this.queue.requestCommit();
    // The tail still has them. What is before its horizon is read from the engine, which does not.
    this.tail.forget(newest.last);
  }

  override async status(): Promise<LogStatus> {
    const { head, headStoredAt, engine } = this;
    const disk = await this.disk();
    const newest = head === 0 ? undefined : { position: head, time: headStoredAt };
    return { heldBytes: engine.heldBytes, oldest: this.oldest(), newest, disk };
  }

  /**
   * Returns the oldest event held. The oldest commits may be recorded for a while after all of theirs was removed, and newer ones have
   * lost some of it, where topics have limits or are removed.
   */
  private oldest(): StoredAt | undefined {
    let looks = 0;
    for (const { first, storedAt, runs } of this.engine.commits.after(this.emptyUpTo)) {
      if (looks >= MOST_LOOKS) return undefined;
      looks += runs.length;
      for (const [topic, position] of runs) {
        if (position > this.head) return undefined;
        if (this.engine.runs.oldest(topic, position)?.first === position)
          return { position, time: storedAt };
      }
      this.emptyUpTo = first;
    }
    return undefined;
  }

  override ageOfNext(topic: string, after: Position): Promise<number | undefined> {
    const run = this.engine.runs.oldest(topic, after + 1);
    return Promise.resolve(run && Math.max(0, this.clock.now() - run.storedAt));
  }

  override backup(): Promise<Backup> {
    const backup = this.engine.backup?.();
    if (backup) return backup;
    const why = `the log is in ${this.location}, and has no backup: only FEED_ENGINE=lmdb has`;
    return Promise.reject(new BackupUnsupportedError(why));
  }

  override onDurable(listener: (topics: Iterable<string>) => void): void {
    this.listener = listener;
  }

  override close(): Promise<void> {
    this.closing ??= this.end();
    return this.closing;
  }

  private async end(): Promise<void> {
    clearInterval(this.sweep);
    await this.queue.close();
    await this.engine.close();
  }

  /** Stores all of a commit or nothing of it, and removes what is over the limits. */
  private async commit(commit: Commit): Promise<void> {
    const stuck = this.engine.refusal(0);
    if (stuck) throw stuck;
    while (this.retention.isBehind) await this.write(NOTHING_TO_STORE);
    const bytes = bytesOf(commit.runs);
    if (this.refusal(bytes)) {
      // Removing what is over a limit may make enough room.
      this.retention.chooseFromQuietTopics(true);
      if (this.retention.isDue(this.clock.now(), true)) await this.write(NOTHING_TO_STORE);
      const full = this.refusal(bytes);
      if (full) throw full;
    }
    await this.write(commit);
  }

  private refusal(bytes: number): AppendError | undefined {
    if (bytes === 0) return undefined;
    return this.retention.refusal(bytes) ?? this.engine.refusal(bytes);
  }

  private async write({ runs, ids }: Commit): Promise<void> {
    const now = this.clock.now();
    const removal = this.retention.plan(runs, now);
    const horizon = this.recent.horizon(now);
    this.removing = removal;
    if (removal.runs.size > 0) await noteRemovals(this.tail, removal);
    try {
      await this.engine.commit({ runs, ids, removal, horizon, lag: this.clock.lag() });
      this.removing = undefined;
    } catch (error) {
      this.removing = undefined;
      forgetRemovals(this, removal);
      throw error;
    }
    this.retention.confirm(removal);
  }

  /** Shows what a commit has stored: all of it at once, unless it goes on the lists of very many sets. Then the rest follows in later turns. */
  private publish(runs: Commit['runs']): Promise<void> | undefined {
    const topics = new Set<string>();
    let shown = 0;
    for (let lists = 0; shown < runs.length && lists < MOST_CHANGED; shown++) {
      lists += this.tail.add(runs[shown]);
      topics.add(runs[shown].topic);
    }
    const newest = runs[shown - 1];
    this.durableHead = newest.last;
    this.headStoredAt = newest.storedAt;
    this.listener(topics);
    if (shown === runs.length) return undefined;
    return nextTurn().then(() => this.publish(runs.slice(shown)));
  }

  /** Requests commits until nothing is over a limit. Appends that come in meanwhile share these commits. */
  private async removeDue(): Promise<void> {
    if (this.isRemoving) return;
    this.isRemoving = true;
    const isIdle = this.headAtSweep === this.head;
    this.headAtSweep = this.head;
    try {
      // Once in each sweep while events come in: they wait if too much is chosen at a time.
      if (!isIdle) this.retention.chooseFromQuietTopics(false);
      for (;;) {
        if (isIdle) this.retention.chooseFromQuietTopics(true);
        if (!this.retention.isDue(this.clock.now(), isIdle)) break;
        await this.queue.requestCommit();
      }
    } catch {
      // The next sweep tries again. Uploads get the reason why commits fail.
    } finally {
      this.isRemoving = false;
    }
  }
}

/** Returns the first `count` (at least 1) of many. It asks for no more: each may cost a search. */
function take<T>(all: Iterable<T>, count: number): T[] {
  const taken: T[] = [];
  for (const one of all) if (taken.push(one) === count) break;
  return taken;
}
