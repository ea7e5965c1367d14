import { setTimeout as sleep } from 'node:timers/promises';
import { LEADER_LAG, type StreamApi, type StreamInfo } from '../../nats/stream-api.js';
import { StreamTail } from '../../nats/stream-tail.js';
import type { Cursor, Position } from '../../wire/cursor.js';
import type { EventBatch } from '../../wire/event-batch.js';
import { AppendQueue, type QueueBytes } from '../append-queue.js';
import { Deduplication } from '../deduplication.js';
import type { Epochs } from '../epochs.js';
import {
  AppendError,
  type CursorPlace,
  type DedupWindow,
  EventsRemovedError,
  type HeldTopic,
  StoreUnavailableError,
} from '../event-repository.js';
import type { LogClock } from '../log-clock.js';
import type { LogReport } from '../log-report.js';
import type { RetentionLimits } from '../retention.js';
import type { StoredRun } from '../stored-run.js';
import { CommitMessages } from './commit-messages.js';
import { Commits } from './commits.js';
import { FloorLooks } from './floor-looks.js';
import { History, RETRY_INTERVAL } from './history.js';
import { LogState, type ReplicaStart } from './log-state.js';
import { commitOf, isEnd, type RunMessage, sequenceOf } from './message.js';
import { SharedTopicLimit } from './shared-topic-limit.js';
import { StoredIds } from './stored-ids.js';
import { StoredRuns } from './stored-runs.js';
import { TopicListing } from './topic-listing.js';

export interface ReplicaOptions {
  readonly dedup: DedupWindow;
  readonly clock: LogClock;
  readonly retention: RetentionLimits;
  /** The most topics that may hold events. */
  readonly maxTopics: number;
  readonly queueBytes: QueueBytes;
  /** How long (milliseconds) work waits for NATS. */
  readonly patience: number;
  readonly report: LogReport;
  /** Called with the topics of each run that can be read now. */
  readonly onDurable: (topics: Iterable<string>) => void;
  /** Called once, when the stream seems to have another history than the one that this replica followed. */
  readonly onLost: (why: string) => void;
}

/** How long (milliseconds) close() waits for NATS. */
const CLOSE_PATIENCE = 5_000;

/**
 * Follows one history of the stream, which other replicas write to as well, and commits to it. What it knows of the log
 * stands in `state`, which the tail brings up to date message by message; commits.ts says how it writes, and history.ts how
 * it notices that the stream is not the one that it followed.
 */
export class Replica {
  readonly queue: AppendQueue;
  /** Called with the topic of each run that this replica has stored. */
  onWritten: (topic: string) => void = () => {};

  readonly state: LogState;
  private readonly history: History;
  readonly stored: StoredRuns;
  /** The same for open watches. Each kind of work takes turns by itself: those who are many do not hold up starts of watches, or commits. */
  private readonly ofWatches: StoredRuns;
  readonly looks = new FloorLooks();
  private readonly messages: CommitMessages;
  private readonly commits: Commits;
  private readonly listing: TopicListing;
  private follower: StreamTail | undefined;
  /** The catchUp() whose question is sent, and the one whose question is sent next. */
  private catchingUp: Promise<void> | undefined;
  private nextCatchUp: Promise<void> | undefined;

  constructor(
    private readonly api: StreamApi,
    private readonly start: ReplicaStart,
    private readonly options: ReplicaOptions,
  ) {
    const { created, prefix, epochsSubject } = start;
    const { clock, dedup, maxTopics, patience, queueBytes, report, onDurable } = options;
    const state = new LogState(start, {
      dedup,
      clock,
      onDurable,
      onOthers: () => (report.newestCameAt = NaN),
      onContradiction: (why) => this.history.lose(why),
    });
    const history = new History(api, state, {
      created,
      patience,
      onLost: (why) => {
        void this.stop();
        options.onLost(why);
      },
    });
    const ofCommits = new StoredRuns(api, history, prefix);
    const storedIds = new StoredIds(state.tail, (sequence) =>
      history.ask(() => history.fromLeader(() => ofCommits.at(sequence))),
    );
    const messages = new CommitMessages(state, history, ofCommits, {
      prefix,
      epochsSubject,
      storesIds: dedup.ids > 0,
      clock,
      isEpochsRecordOld: (moreBytes) => this.isEpochsRecordOld(moreBytes),
    });
    const commits = new Commits(api, state, history, messages, storedIds, {
      epochsSubject,
      patience,
      report,
    });
    const { head, storedAt } = state;
    this.queue = new AppendQueue(
      {
        head,
        storedAt,
        now: clock.now,
        get epochs() {
          return state.epochs;
        },
      },
      (commit) => commits.commit(commit),
      (runs) => this.publish(runs),
      new Deduplication(state.recent, (topic, position) => storedIds.at(topic, position)),
      commits,
      { bytes: queueBytes, topics: new SharedTopicLimit(maxTopics, state, history, ofCommits) },
      report,
    );
    this.state = state;
    this.history = history;
    this.stored = new StoredRuns(api, history, prefix);
    this.ofWatches = new StoredRuns(api, history, prefix);
    this.messages = messages;
    this.commits = commits;
    this.listing = new TopicListing(api, prefix);
  }

  get head(): Position {
    return this.state.head;
  }

  get epochs(): Epochs {
    return this.state.epochs;
  }

  get dedupWindow(): DedupWindow {
    return this.state.recent.current(this.options.clock.now());
  }

  /** Follows the stream. Resolves when what it held at the start is applied, and a new epoch is begun if the quota allows. */
  async join(): Promise<void> {
    this.follower = new StreamTail(this.api, {
      onMessage: (sequence, subject, data) => this.state.onMessage(sequence, subject, data),
      onIdle: (sequence) => this.state.onIdle(sequence),
      next: () => this.nextSequence(),
    });
    await this.state.until(this.start.last);
    try {
      await this.writeEpochs(true);
    } catch (error) {
      // Where the quota is reached, this replica only reads. Once there is room, the record is stored before anything else.
      const isFull = error instanceof AppendError && error.reason === 'storage-full';
      // Without any epoch, it has no cursors to give out.
      if (!isFull || this.epochs.starts.length === 0) throw error;
    }
  }

  /** Throws an AppendError if it has ended, or lost its history. */
  refuseIfOver(): void {
    this.history.refuseIfOver();
  }

  /** Appends a record of all epochs, and of a new one if `begins`. Resolves when it is durable. */
  async writeEpochs(begins: boolean): Promise<void> {
    this.messages.requestEpochs(begins);
    while (this.messages.areEpochsDue) await this.queue.requestCommit();
  }

  /** Returns true if the record of the epochs must be written again, before retention removes it. */
  isEpochsRecordOld(moreBytes = 0): boolean {
    const { maxAge, maxBytes } = this.options.retention;
    const { epochsWrittenAt, bytesSinceEpochs } = this.state;
    return (
      (maxAge > 0 && performance.now() - epochsWrittenAt > maxAge / 4) ||
      (maxBytes > 0 && bytesSinceEpochs + moreBytes > maxBytes / 4)
    );
  }

  /** Nothing waits for NATS any more, other than open watches. */
  giveUp(): void {
    this.history.giveUp();
    this.commits.endWithin(0);
    this.api.giveUp();
  }

  /** Commits what waits, for CLOSE_PATIENCE at most, and ends. */
  async close(): Promise<void> {
    this.commits.endWithin(CLOSE_PATIENCE);
    await this.queue.close();
    await this.stop();
  }

  /** Ends at once, without a commit of what waits. */
  private async stop(): Promise<void> {
    this.history.end();
    this.state.end();
    await this.follower?.stop();
  }

  /**
   * Resolves with true if this replica follows the history that another one has lost: that was cut short, and the stream has the
   * last message of it again.
   *
   * @throws StoreUnavailableError
   */
  async continues(lost: Replica): Promise<boolean> {
    const { applied, lastCommit } = lost.state;
    if (!lost.history.isCutShort || !lastCommit) return false;
    const last = () => this.api.message({ seq: applied });
    const found = await this.history.ask(() => this.history.fromLeader(last));
    return found !== undefined && commitOf(found.data).equals(lastCommit);
  }

  /** Call it when the connection was interrupted: the stream may be another one than before. */
  suspect(): void {
    this.history.suspect();
  }

  read(
    topic: string,
    after: Position,
    maxBytes: number,
  ): EventBatch | undefined | Promise<EventBatch | undefined> {
    const { tail } = this.state;
    if (after >= tail.horizon) return tail.read(topic, after, maxBytes);
    return this.readStored(topic, after, maxBytes);
  }

  private async readStored(
    topic: string,
    after: Position,
    maxBytes: number,
  ): Promise<EventBatch | undefined> {
    const { head } = this;
    const state = this.state.topics.get(topic);
    const read = () => this.ofWatches.read(topic, after, head, maxBytes);
    // A watch outlives a cut from NATS, so its reads do, too.
    const found = await this.history.ask(read, Infinity);
    if (found === 'later') return undefined;
    if (found !== 'none') return found;
    // If there was something, it was removed.
    const newest = state?.last ?? (await this.floorOfStream(Infinity));
    if (newest <= after) return undefined;
    // Or the stream is another one, which does not have it.
    this.history.suspect();
    await this.history.compareUntilSure();
    throw new EventsRemovedError();
  }

  async floor(topic: string): Promise<Position> {
    // Taken before the question: events that come meanwhile are held, though the answer does not know them.
    const state = this.state.topics.get(topic);
    const oldest = await this.history.ask(() => this.stored.firstFrom(topic, 1));
    if (oldest) return oldest.previous;
    return state?.last ?? this.floorOfStream();
  }

  private floorOfStream(patience?: number): Promise<Position> {
    const { applied } = this.state;
    return this.history.ask(() => this.stored.floorOfStream(applied), patience);
  }

  async positionBefore(topic: string, storedSince: number): Promise<Position | undefined> {
    if (storedSince === Infinity) return undefined;
    const found = await this.history.ask(() =>
      this.stored.firstWhere(topic, this.state.applied, ({ storedAt }) => storedAt >= storedSince),
    );
    return found && found.run.first - 1;
  }

  async positionBeforeLast(topic: string, count: number, head: Position): Promise<Position> {
    return this.history.ask(async () => {
      const newest = await this.newestUpTo(topic, head);
      if (!newest) return this.floor(topic);
      const wanted = newest.total - count;
      const isWanted = ({ total }: RunMessage): boolean => total > wanted;
      const found = (await this.stored.firstWhere(topic, newest.sequence, isWanted)) ?? newest;
      return Math.max(found.run.first - 1, found.run.last - (found.total - wanted));
    });
  }

  /** As EventRepository.ageOfNext(), however long it takes. */
  async ageOfNext(topic: string, after: Position): Promise<number | undefined> {
    const { stored, history } = this;
    const from = Math.max(1, sequenceOf(after));
    let next = await history.ask(() => stored.firstFrom(topic, from));
    // Markers of removals may follow.
    while (next && next.run.last <= after) {
      const { sequence } = next;
      next = await history.ask(() => stored.firstFrom(topic, sequence + 1));
    }
    return next && Math.max(0, this.options.clock.now() - next.run.storedAt);
  }

  topics(prefix: string, after: string | undefined, limit: number): Promise<readonly string[]> {
    return this.history.ask(() => this.listing.topics(prefix, after, limit));
  }

  runsOfPattern(
    pattern: string,
    from: number,
    maxBytes: number,
    patience?: number,
  ): Promise<RunMessage[]> {
    const stored = this.storedFor(patience);
    return this.history.ask(() => stored.ofPattern(pattern, from, maxBytes), patience);
  }

  /** StoredRuns.firstFrom() */
  oldest(topic: string, patience?: number, from = 1): Promise<RunMessage | undefined> {
    const stored = this.storedFor(patience);
    return this.history.ask(() => stored.firstFrom(topic, from), patience);
  }

  /** Only an open watch asks for ever. */
  private storedFor(patience: number | undefined): StoredRuns {
    return patience === Infinity ? this.ofWatches : this.stored;
  }

  topicsOfPattern(pattern: string, patience?: number): Promise<readonly string[]> {
    return this.history.ask(() => this.listing.ofPattern(pattern), patience);
  }

  streamInfo(patience?: number): Promise<StreamInfo> {
    return this.history.ask(() => this.api.info(), patience);
  }

  /** It asks the stream's leader for two messages, and for a third one where the topic was removed before. */
  async heldOf(topic: string): Promise<HeldTopic | undefined> {
    const { head } = this;
    return this.history.ask(async () => {
      const newest = await this.newestUpTo(topic, head);
      if (!newest) return undefined;
      let oldest = await this.stored.firstFrom(topic, 1);
      const before = oldest && oldest.total - oldest.run.count;
      const bytesBefore = oldest && oldest.totalBytes - oldest.run.bytes.length;
      // The marker of a removal holds no event.
      while (oldest?.run.count === 0)
        oldest = await this.stored.firstFrom(topic, oldest.sequence + 1);
      if (!oldest || newest.total <= before!) return undefined;
      const last = (await this.stored.withEvents(newest)) ?? newest;
      return {
        events: newest.total - before!,
        bytes: newest.totalBytes - bytesBefore!,
        oldest: { position: oldest.run.first, time: oldest.storedAt },
        newest: { position: newest.run.last, time: last.storedAt },
      };
    });
  }

  /** It asks the stream's leader for two messages, but for none where nothing has come to the topic since. */
  async countAfter(topic: string, after: Position): Promise<number> {
    const { head } = this;
    const state = this.state.topics.get(topic);
    if (after >= head || (state && state.last <= after)) return 0;
    return this.history.ask(async () => {
      const newest = await this.newestUpTo(topic, head);
      if (!newest || newest.run.last <= after) return 0;
      // The run that holds the position, or the next one.
      const next = await this.stored.firstFrom(topic, Math.max(1, sequenceOf(after)));
      if (!next) return 0;
      const { first, count } = next.run;
      const passed = Math.min(count, Math.max(0, after - first + 1));
      return Math.max(0, newest.total - (next.total - count + passed));
    });
  }

  /**
   * Returns a topic's newest run, as the leader knows it once it has all that this replica has of the topic.
   *
   * @throws RefusedError, UnansweredError
   */
  async newest(topic: string): Promise<RunMessage | undefined> {
    const { applied, topics } = this.state;
    const known = topics.get(topic)?.last;
    if (known !== undefined) {
      const newest = await this.stored.newest(topic);
      if (newest && newest.run.last >= known) return newest;
    }
    await this.history.leaderHas(applied);
    return this.stored.newest(topic);
  }

  /** Returns a topic's newest run up to a head that this replica has. */
  private async newestUpTo(topic: string, head: Position): Promise<RunMessage | undefined> {
    let newest = await this.newest(topic);
    // Runs after the head came just now, so they are few.
    while (newest && newest.run.last > head)
      newest = newest.previous > 0 ? await this.stored.at(sequenceOf(newest.previous)) : undefined;
    return newest;
  }

  async removeTopic(topic: string): Promise<void> {
    const { history, stored } = this;
    const held = this.state.applied;
    const newest = () => history.fromLeader(() => stored.newest(topic));
    const found = await history.ask(newest);
    if (!found) return;
    // The marker comes first: if the purge fails, nothing is removed, and the call can be repeated.
    const purge = (before: number) =>
      history.ask(() => this.api.purge(this.start.prefix + topic, before));
    try {
      await this.mark(topic);
    } catch (error) {
      if (!(error instanceof AppendError && error.reason === 'storage-full')) throw error;
      // Where the quota leaves no room for a marker, the newest run says where the topic's floor is.
      await purge(found.sequence);
      await this.mark(topic);
    }
    // Events that came to the topic meanwhile stay, though they stand before the marker.
    await purge(Math.max(held, found.sequence) + 1);
  }

  /** Stores the marker of a topic's removal. */
  private async mark(topic: string): Promise<void> {
    const marker = this.messages.requestMarker(topic);
    try {
      while (marker.sequence === 0) await this.queue.requestCommit();
    } finally {
      this.messages.cancelMarker(marker);
    }
  }

  /** Resolves once all is applied that the stream had when this was called. Calls that come together share a question. */
  catchUp(): Promise<void> {
    this.nextCatchUp ??= (async () => {
      await this.catchingUp?.catch(() => {});
      const { nextCatchUp } = this;
      this.nextCatchUp = undefined;
      this.catchingUp = nextCatchUp;
      const { state } = await this.history.ask(() => this.api.info());
      await this.state.until(state.last_seq, this.options.patience);
      this.refuseStarts();
    })();
    return this.nextCatchUp;
  }

  /**
   * As catchUp(), and if the cursor is not known then, waits for its message. Another replica that gave it out may be ahead of the
   * stream's leader, which catchUp() asks.
   */
  async catchUpTo(cursor: Cursor): Promise<void> {
    await this.catchUp();
    const sequence = sequenceOf(cursor.position);
    const mayCome = () =>
      this.locate(cursor) !== 'in-log' && this.state.applied < sequence && !this.history.isOver;
    // Looks are counted, and not the time: where this process stands still, the message may come meanwhile, and wait in its socket.
    for (let looks = LEADER_LAG / RETRY_INTERVAL; looks > 0 && mayCome(); looks--)
      await sleep(RETRY_INTERVAL);
    this.refuseStarts();
  }

  /** Throws if this replica is over: what it would say of a cursor may be wrong. */
  private refuseStarts(): void {
    if (this.history.isOver)
      throw new StoreUnavailableError('this replica does not follow the stream now');
  }

  locate(cursor: Cursor): CursorPlace {
    const { position } = cursor;
    const { applied, epochs, newest } = this.state;
    // A position that endOf() made may be after the newest event.
    const isKnown = isEnd(position) && sequenceOf(position) <= applied;
    return epochs.locate(cursor, isKnown ? Math.max(position, newest) : newest);
  }

  /** Called by the queue once a commit is durable. */
  private publish(runs: readonly StoredRun[]): void {
    this.state.show(runs);
    for (const { topic } of runs) this.onWritten(topic);
  }

  /** Returns the sequence that the tail is to begin with, once it is sure that the stream is the same. */
  private async nextSequence(): Promise<number | undefined> {
    const { history } = this;
    history.suspect();
    await history.compareUntilSure();
    return history.isOver ? undefined : this.state.tailStart;
  }
}
