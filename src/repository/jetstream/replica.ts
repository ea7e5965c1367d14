import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cursor, Position } from '../../wire/cursor.js';
import type { EventBatch } from '../../wire/event-batch.js';
import { AppendQueue, OvertakenError, type QueueStart, type SharedLog } from '../append-queue.js';
import type { Commit } from '../commit.js';
import { Deduplication } from '../deduplication.js';
import { Epochs } from '../epochs.js';
import {
  AppendError,
  type CursorPlace,
  type DedupWindow,
  EventsRemovedError,
  StoreUnavailableError,
} from '../event-repository.js';
import type { LogClock } from '../log-clock.js';
import { RecentIds } from '../recent-ids.js';
import type { RetentionLimits } from '../retention.js';
import { bytesOf, type StoredRun } from '../stored-run.js';
import { Tail } from '../tail.js';
import {
  commitOf,
  decode,
  encodeEpochs,
  encodeRun,
  endOf,
  firstOf,
  headAfter,
  isEnd,
  type Message,
  POSITIONS,
  type RunMessage,
  sequenceOf,
} from './message.js';
import { CODE, RefusedError, type StreamApi, UnansweredError } from '../../nats/stream-api.js';
import { inParts } from './in-parts.js';
import { StoredIds } from './stored-ids.js';
import { StoredRuns } from './stored-runs.js';
import { StreamTail } from '../../nats/stream-tail.js';
import { type TopicState, TopicStates } from './topic-states.js';

/** Where a replica begins to follow the stream, and what it knows then. */
export interface ReplicaStart {
  /** The stream's creation time, which tells it from a stream of the same name that was made later. */
  readonly created: string;
  /** The beginning of each topic's subject. Without its last dot it is the subject of the records of epochs. */
  readonly prefix: string;
  /** The first message that deduplication and the tail need. */
  readonly from: number;
  /** The stream's last sequence. The replica is ready when it has applied it. */
  readonly last: number;
  /** The log before the message at `from`. */
  readonly before: {
    readonly head: Position;
    readonly storedAt: number;
    readonly allIds: number;
    readonly commit: Buffer | undefined;
  };
  readonly epochs: Epochs;
}

export interface ReplicaOptions {
  readonly dedup: DedupWindow;
  readonly clock: LogClock;
  readonly retention: RetentionLimits;
  /** How long (milliseconds) work waits for NATS. */
  readonly patience: number;
  /** Called with the topics of each run that can be read now. */
  readonly onDurable: (topics: Iterable<string>) => void;
  /** Called once, when the stream turns out to have another history than the one that this replica followed. */
  readonly onLost: (why: string) => void;
}

const TAIL_BYTES = 32 * 2 ** 20;
const RETRY_INTERVAL = 100;
/** About what the server counts of a message beside its events: the head, the subject, ids and headers. */
const MESSAGE_OVERHEAD = 300;
/** How long (milliseconds) close() waits for NATS. */
const CLOSE_PATIENCE = 5_000;
/** If others wrote within this time (milliseconds) before, they get their turn. */
const TURN_WINDOW = 100;
/** A turn is this many times as long as the last commit took, and at most MAX_TURN milliseconds. */
const TURN_SHARE = 1.5;
const MAX_TURN = 50;
/** One atomic batch of JetStream has at most 1,000 messages. */
const MAX_BATCH = 1_000;

interface Waiter {
  readonly sequence: number;
  readonly resolve: () => void;
}

/**
 * Follows one history of the stream, which other replicas write to as well, and commits to it.
 *
 * It takes the stream over message by message; `applied` is the sequence of the last one that it has taken over. Its commits
 * carry the condition that the stream's last sequence is `applied`, so nothing that it decided on is out of date. From
 * begin() to settled(), messages of the tail are held back, because the commit's own outcome comes first.
 *
 * When something unexpected happens (a reconnect, silence, a refusal), it is suspicious: before the next commit it compares
 * the message at `applied` with the one that it has applied. If the stream has another one, its history is lost.
 */
export class Replica implements QueueStart, SharedLog {
  readonly now: () => number;
  readonly commitBytes = 2 * 2 ** 20;
  readonly maxRuns = MAX_BATCH;
  readonly queue: AppendQueue;
  epochs: Epochs;
  /** The newest event that can be read. During a commit of this replica, it is behind `newest`. */
  head: Position;
  storedAt: number;
  /** Called with the topic of each run that this replica has stored. */
  onWritten: (topic: string) => void = () => {};

  private readonly stored: StoredRuns;
  private readonly tail: Tail;
  private readonly recent: RecentIds;
  private readonly topics = new TopicStates();
  private applied: number;
  /** The log's newest event, as of `applied`. */
  private newest: Position;
  private allIds: number;
  /** The commit of the message at `applied`; undefined if that message was not held any more at the start. */
  private lastCommit: Buffer | undefined;
  private follower: StreamTail | undefined;

  private isCommitting = false;
  private heldBack: [sequence: number, subject: string, data: Buffer][] = [];
  private waiters: Waiter[] = [];
  /** begin() waits until this sequence is applied. */
  private awaited = 0;
  /** True if the next commit adds a record of the epochs; with a new one, if `beginsEpoch`. */
  private writesEpochs = false;
  private beginsEpoch = false;
  /** When the newest record of the epochs was applied, and how much was stored since. */
  private epochsWrittenAt = performance.now();
  private bytesSinceEpochs = 0;
  /** When others wrote last, and the last commit of this replica: its end and how long it took. */
  private othersAt = -Infinity;
  private committedAt = -Infinity;
  private commitTook = 0;

  private readonly storedIds: StoredIds;

  /** The catchUp() whose question is sent, and the one whose question is sent next. */
  private catchingUp: Promise<void> | undefined;
  private nextCatchUp: Promise<void> | undefined;

  private isSuspicious = false;
  private comparing: Promise<void> | undefined;
  private lostBecause: string | undefined;
  private isClosed = false;
  private closeBy = Infinity;

  constructor(
    private readonly api: StreamApi,
    private readonly start: ReplicaStart,
    private readonly options: ReplicaOptions,
  ) {
    const { before, from, epochs, prefix } = start;
    this.epochs = epochs;
    this.head = this.newest = before.head;
    this.storedAt = before.storedAt;
    this.allIds = before.allIds;
    this.lastCommit = before.commit;
    this.applied = from - 1;
    this.stored = new StoredRuns(api, prefix);
    this.tail = new Tail(endOf(this.applied), TAIL_BYTES);
    this.recent = new RecentIds(options.dedup);
    this.storedIds = new StoredIds(this.tail, (sequence) =>
      this.ask(() => this.stored.at(sequence)),
    );
    this.now = options.clock.now;
    this.queue = new AppendQueue(
      this,
      (commit) => this.commit(commit),
      (runs) => this.publish(runs),
      new Deduplication(this.recent, (topic, position) => this.storedIds.at(topic, position)),
      this,
    );
  }

  /** Follows the stream. Resolves when what it held at the start is applied, and a new epoch is begun. */
  async join(): Promise<void> {
    this.follower = new StreamTail(this.api, {
      onMessage: (sequence, subject, data) => this.onMessage(sequence, subject, data),
      onIdle: (sequence) => this.onIdle(sequence),
      next: () => this.nextSequence(),
    });
    await this.until(this.start.last);
    await this.writeEpochs(true);
  }

  /** Appends a record of all epochs, and of a new one if `begins`. Resolves when it is durable. */
  async writeEpochs(begins: boolean): Promise<void> {
    this.writesEpochs = true;
    this.beginsEpoch ||= begins;
    while (this.writesEpochs) await this.queue.requestCommit();
  }

  /** Returns true if the record of the epochs must be written again, before retention removes it. */
  isEpochsRecordOld(moreBytes = 0): boolean {
    const { maxAge, maxBytes } = this.options.retention;
    return (
      (maxAge > 0 && performance.now() - this.epochsWrittenAt > maxAge / 4) ||
      (maxBytes > 0 && this.bytesSinceEpochs + moreBytes > maxBytes / 4)
    );
  }

  /** Commits what waits, for CLOSE_PATIENCE at most, and ends. */
  async close(): Promise<void> {
    this.closeBy = performance.now() + CLOSE_PATIENCE;
    await this.queue.close();
    await this.stop();
  }

  /** Ends at once, without a commit of what waits. */
  private async stop(): Promise<void> {
    this.isClosed = true;
    for (const { resolve } of this.waiters) resolve();
    this.waiters = [];
    await this.follower?.stop();
  }

  /** Call it when the connection was interrupted: the stream may be another one than before. */
  suspect(): void {
    this.isSuspicious = true;
  }

  // Reads.

  read(
    topic: string,
    after: Position,
    maxBytes: number,
  ): EventBatch | undefined | Promise<EventBatch | undefined> {
    if (after >= this.tail.horizon) return this.tail.read(topic, after, maxBytes);
    return this.readStored(topic, after, maxBytes);
  }

  private async readStored(
    topic: string,
    after: Position,
    maxBytes: number,
  ): Promise<EventBatch | undefined> {
    const { head } = this;
    const state = this.topics.get(topic);
    const read = () => this.stored.read(topic, after, head, maxBytes);
    // A watch outlives a cut from NATS, so its reads do, too.
    const found = await this.ask(read, Infinity);
    if (found === 'later') return undefined;
    if (found !== 'none') return found;
    // If there was something, it was removed.
    const newest = state?.last ?? (await this.floorOfStream(Infinity));
    if (newest > after) throw new EventsRemovedError();
    return undefined;
  }

  async floor(topic: string): Promise<Position> {
    const oldest = await this.ask(() => this.stored.firstFrom(topic, 1));
    if (oldest) return oldest.previous;
    return this.topics.get(topic)?.last ?? this.floorOfStream();
  }

  /** Returns a position up to which nothing is held of any topic. */
  private async floorOfStream(patience = this.options.patience): Promise<Position> {
    const { state } = await this.ask(() => this.api.info(), patience);
    return state.first_seq > 1 ? endOf(state.first_seq - 1) : 0;
  }

  async positionBefore(topic: string, storedSince: number): Promise<Position | undefined> {
    const found = await this.ask(() =>
      this.stored.firstWhere(topic, this.applied, ({ storedAt }) => storedAt >= storedSince),
    );
    return found && found.run.first - 1;
  }

  async positionBeforeLast(topic: string, count: number, head: Position): Promise<Position> {
    return this.ask(async () => {
      let newest = await this.stored.newest(topic);
      // Runs after the head came just now, so they are few.
      while (newest && newest.run.last > head)
        newest = await this.stored.at(sequenceOf(newest.previous));
      if (!newest) return this.floor(topic);
      const wanted = newest.total - count;
      const isWanted = ({ total }: RunMessage): boolean => total > wanted;
      const found = (await this.stored.firstWhere(topic, newest.sequence, isWanted)) ?? newest;
      return Math.max(found.run.first - 1, found.run.last - (found.total - wanted));
    });
  }

  /** Resolves once all is applied that the stream had when this was called. Calls that come together share a question. */
  catchUp(): Promise<void> {
    this.nextCatchUp ??= (async () => {
      await this.catchingUp?.catch(() => {});
      const { nextCatchUp } = this;
      this.nextCatchUp = undefined;
      this.catchingUp = nextCatchUp;
      const { state } = await this.ask(() => this.api.info());
      await this.until(state.last_seq);
    })();
    return this.nextCatchUp;
  }

  locate(cursor: Cursor): CursorPlace {
    const { position } = cursor;
    // A position that endOf() made may be after the newest event.
    const isKnown = isEnd(position) && sequenceOf(position) <= this.applied;
    return this.epochs.locate(cursor, isKnown ? Math.max(position, this.newest) : this.newest);
  }

  // The tail.

  private onMessage(sequence: number, subject: string, data: Buffer): void {
    if (this.isCommitting) this.heldBack.push([sequence, subject, data]);
    else this.apply(sequence, subject, data);
  }

  /** Nothing up to a sequence will come any more. If this replica has not got it, it was removed. */
  private onIdle(sequence: number): void {
    if (this.isCommitting || sequence <= this.applied) return;
    this.topics.clear();
    this.tail.forget(endOf(sequence));
    this.lastCommit = undefined;
    this.head = this.newest = endOf(sequence);
    this.reach(sequence);
  }

  /** Notes that all up to a sequence is applied. */
  private reach(sequence: number): void {
    this.applied = sequence;
    const { waiters } = this;
    if (waiters.length === 0) return;
    this.waiters = waiters.filter((waiter) => waiter.sequence > sequence);
    for (const waiter of waiters) if (waiter.sequence <= sequence) waiter.resolve();
  }

  private apply(sequence: number, subject: string, data: Buffer): void {
    if (sequence <= this.applied || this.lostBecause !== undefined) return;
    try {
      const message = decode(sequence, subject.slice(this.start.prefix.length), data);
      this.checkGap(sequence);
      if (message.kind === 'run') this.checkOrder(message.run.topic, message.previous, sequence);
      this.take(message);
      if (message.kind === 'run') {
        const { run, ids } = message;
        for (let i = 0; i < ids.length; i += 2) {
          if (ids[i] !== 0 || ids[i + 1] !== 0)
            this.recent.add(ids[i], ids[i + 1], run.first + i / 2, run.storedAt);
        }
        this.show([run]);
      }
      this.othersAt = performance.now();
    } catch (error) {
      this.lose((error as Error).message);
    }
  }

  /** Notes what a message says of the log. */
  private take(message: Message): void {
    this.lastCommit = message.commit;
    this.storedAt = Math.max(this.storedAt, message.storedAt);
    this.allIds = message.allIds;
    if (message.kind === 'epochs') {
      this.epochs = new Epochs(message.starts);
      this.epochsWrittenAt = performance.now();
      this.bytesSinceEpochs = 0;
    } else {
      const { run, total, totalBytes } = message;
      this.topics.set(run.topic, { last: run.last, total, totalBytes });
      this.bytesSinceEpochs += run.bytes.length + MESSAGE_OVERHEAD;
    }
    this.newest = headAfter(message);
    this.reach(message.sequence);
  }

  /** Adds runs to the tail and wakes their watches. */
  private show(runs: readonly StoredRun[]): void {
    for (const run of runs) this.tail.add(run);
    // Only now: a watch that reads up to the head must find these events.
    this.head = runs[runs.length - 1].last;
    this.options.onDurable(new Set(runs.map(({ topic }) => topic)));
  }

  /**
   * A gap in the sequences means that messages were removed before they came here. Then nothing is known any more of the
   * topics, and reads of what was before go to the stream.
   */
  private checkGap(sequence: number): void {
    if (sequence === this.applied + 1) return;
    this.topics.clear();
    this.tail.forget(firstOf(sequence) - 1);
  }

  /** Throws if a run does not follow the one that this replica had before: one of them is lost, or was never stored. */
  private checkOrder(topic: string, previous: Position, sequence: number): void {
    const known = this.topics.get(topic);
    if (!known || known.last === previous || (isEnd(previous) && previous > known.last)) return;
    throw new Error(
      `message ${sequence} of ${topic} follows position ${previous}, but the topic had ${known.last} before`,
    );
  }

  /** Resolves once a message is applied, or the replica has ended. */
  private until(sequence: number): Promise<void> {
    if (sequence <= this.applied || this.isClosed) return Promise.resolve();
    return new Promise((resolve) => this.waiters.push({ sequence, resolve }));
  }

  // Commits.

  nextRun(after: Position): Position {
    // The first run of a commit follows what is applied; others follow the run before.
    return firstOf(Math.max(sequenceOf(after), this.applied) + 1);
  }

  async begin(): Promise<{ head: Position; storedAt: number }> {
    await this.giveTurn();
    const end = performance.now() + this.options.patience;
    for (;;) {
      this.refuseIfEnded();
      if (this.isSuspicious) await this.compare();
      else if (this.applied < this.awaited)
        await Promise.race([this.until(this.awaited), sleep(RETRY_INTERVAL)]);
      else break;
      if (this.isOver(end)) throw unavailable('the stream does not answer');
    }
    this.isCommitting = true;
    this.storedIds.begin();
    return { head: this.newest, storedAt: this.storedAt };
  }

  settled(): void {
    this.isCommitting = false;
    this.storedIds.settled();
    const { heldBack } = this;
    this.heldBack = [];
    for (const [sequence, subject, data] of heldBack) this.apply(sequence, subject, data);
  }

  /** Waits for a commit of another replica, if others write at the same time. Else one would win every time. */
  private async giveTurn(): Promise<void> {
    const now = performance.now();
    if (this.othersAt < now - TURN_WINDOW || this.othersAt > this.committedAt) return;
    const left = this.committedAt + Math.min(MAX_TURN, TURN_SHARE * this.commitTook) - now;
    if (left > 0) await Promise.race([this.until(this.applied + 1), sleep(left)]);
  }

  private async commit(commit: Commit): Promise<void> {
    try {
      if (this.storedIds.areMissing) {
        await this.storedIds.fetch();
        throw new OvertakenError();
      }
      await this.store(commit);
    } catch (error) {
      throw error instanceof StoreUnavailableError ? this.unknownOutcome(error) : error;
    }
  }

  private async store({ runs, ids }: Commit): Promise<void> {
    const base = this.applied;
    const messages = await this.messagesOf(runs, ids);
    if (messages.length === 0) return;
    const startedAt = performance.now();
    await this.send(
      messages.map(({ subject, data }) => ({ subject, data })),
      base,
    );
    for (const { message } of messages) this.take(message);
    if (messages.at(-1)!.message.kind === 'epochs') this.writesEpochs = this.beginsEpoch = false;
    this.committedAt = performance.now();
    this.commitTook = this.committedAt - startedAt;
  }

  /** Called by the queue once a commit is durable. */
  private publish(runs: readonly StoredRun[]): void {
    this.show(runs);
    for (const { topic } of runs) this.onWritten(topic);
  }

  private async messagesOf(
    runs: readonly StoredRun[],
    ids: readonly Uint32Array[],
  ): Promise<{ message: Message; subject: string; data: Uint8Array }[]> {
    const { prefix } = this.start;
    const commit = randomBytes(8);
    const states = await this.statesOf(new Set(runs.map(({ topic }) => topic)));
    const idsOf = this.options.dedup.ids > 0 ? idsByRun(ids) : () => NO_IDS;
    let { newest: head, allIds } = this;
    const messages = runs.map((run, i) => {
      const sequence = this.applied + 1 + i;
      const was = states.get(run.topic)!;
      const total = was.total + run.count;
      const totalBytes = was.totalBytes + run.bytes.length;
      states.set(run.topic, { last: run.last, total, totalBytes });
      const runIds = idsOf(run);
      allIds += countOf(runIds);
      const { storedAt } = run;
      const rest = {
        commit,
        storedAt,
        before: head,
        allIds,
        previous: was.last,
        total,
        totalBytes,
      };
      const message: Message = { kind: 'run', sequence, run, ids: runIds, ...rest };
      if (run.first !== firstOf(sequence) || run.count >= POSITIONS - 1)
        throw new Error(
          `a run of ${run.count} events at ${run.first} can't be message ${sequence}`,
        );
      head = run.last;
      return { message, subject: prefix + run.topic, data: encodeRun(message) };
    }) as { message: Message; subject: string; data: Uint8Array }[];
    const bytes = bytesOf(runs) + MESSAGE_OVERHEAD * runs.length;
    if ((this.writesEpochs || this.isEpochsRecordOld(bytes)) && runs.length < MAX_BATCH) {
      const sequence = this.applied + 1 + runs.length;
      const epochs = this.beginsEpoch ? this.epochs.begun(head) : this.epochs;
      const { starts } = epochs;
      const { storedAt } = this;
      const record = { commit, storedAt, before: head, allIds };
      messages.push({
        message: { kind: 'epochs', sequence, starts, ...record },
        subject: prefix.slice(0, -1),
        data: encodeEpochs(starts, record),
      });
    }
    return messages;
  }

  /** Returns the states of topics, as of `applied`. Asks the stream for those that this replica has not met. */
  private async statesOf(topics: ReadonlySet<string>): Promise<Map<string, TopicState>> {
    const states = new Map<string, TopicState>();
    await inParts([...topics], async (topic) => {
      states.set(topic, this.topics.get(topic) ?? (await this.learn(topic)));
    });
    return states;
  }

  private async learn(topic: string): Promise<TopicState> {
    const newest = await this.ask(() => this.stored.newest(topic));
    // Nobody knows where the newest removed event was: anywhere before what the stream holds.
    if (!newest) return { last: await this.floorOfStream(), total: 0, totalBytes: 0 };
    if (newest.sequence > this.applied) throw this.overtaken(newest.sequence);
    const { run, total, totalBytes } = newest;
    return { last: run.last, total, totalBytes };
  }

  private overtaken(sequence: number): OvertakenError {
    this.awaited = Math.max(this.awaited, sequence);
    return new OvertakenError();
  }

  /** Stores messages behind the sequence `base`. If the answer is lost, it finds out whether they are stored. */
  private async send(
    messages: readonly { readonly subject: string; readonly data: Uint8Array }[],
    base: number,
  ): Promise<void> {
    const end = performance.now() + this.options.patience;
    for (let attempt = 0; ; attempt++) {
      this.refuseIfEnded();
      const id = randomBytes(8).toString('hex');
      try {
        const sequence = await this.api.publish(messages, base, id);
        if (sequence === base + messages.length) return;
        throw this.lose(`the commit behind ${base} was stored at ${sequence}`);
      } catch (error) {
        if (!(error instanceof RefusedError || error instanceof UnansweredError)) throw error;
        const isRefused = error instanceof RefusedError;
        // Whatever refuses this attempt, an earlier one may have been stored.
        if (isRefused && attempt > 0 && (await this.isStored(messages, base, end))) return;
        if (isRefused && OVERTAKEN.has(error.code)) throw await this.findOvertaking(base, end);
        if (isRefused && FULL.has(error.code))
          throw new AppendError(
            'storage-full',
            `${error.message}: raise FEED_QUOTA_BYTES, or make room`,
          );
        if (isRefused && error.code === CODE.messageTooLarge)
          throw new AppendError('refused', error.message);
        // The same once more is the same commit: it is stored once, because of its condition.
        if (this.isOver(end)) throw this.unknownOutcome(error);
        this.suspect();
        await this.connected(end);
        await this.compare();
      }
    }
  }

  private refuseIfEnded(): void {
    if (this.lostBecause !== undefined) throw new AppendError('unavailable', this.lostBecause);
    if (this.isClosed) throw new AppendError('refused', 'the log is closed');
  }

  /** Returns true if work that may take until `end` is to give up. */
  private isOver(end: number): boolean {
    return performance.now() > Math.min(end, this.closeBy);
  }

  private unknownOutcome(error: Error): AppendError {
    // If the commit was stored after all, the tail brings it.
    this.suspect();
    return unavailable(error.message);
  }

  /** Waits while there is no connection: what is sent then would only pile up. */
  private async connected(end: number): Promise<void> {
    do await sleep(RETRY_INTERVAL);
    while (!this.isClosed && !this.isOver(end) && !this.api.isConnected);
  }

  /** Returns true if the message behind `base` is the first of these: the answer to an earlier attempt was lost. */
  private async isStored(
    messages: readonly { readonly data: Uint8Array }[],
    base: number,
    end: number,
  ): Promise<boolean> {
    const own = commitOf(messages[0].data);
    if (
      this.heldBack.some(
        ([sequence, , data]) => sequence === base + 1 && commitOf(data).equals(own),
      )
    )
      return true;
    const found = await this.ask(
      () => this.api.message({ seq: base + 1 }),
      end - performance.now(),
    );
    return found !== undefined && commitOf(found.data).equals(own);
  }

  private async findOvertaking(base: number, end: number): Promise<Error> {
    const { state } = await this.ask(() => this.api.info(), end - performance.now());
    if (state.last_seq > base) return this.overtaken(state.last_seq);
    if (state.last_seq === base) return new OvertakenError();
    return this.lose(`the stream ends at ${state.last_seq}, and this replica had ${base} of it`);
  }

  // Is it still the same stream?

  private async nextSequence(): Promise<number | undefined> {
    this.suspect();
    while (this.isSuspicious && !this.isClosed) await this.compare();
    if (this.isClosed || this.lostBecause !== undefined) return undefined;
    return this.applied + 1;
  }

  /** Compares the stream with what this replica has applied of it. */
  private compare(): Promise<void> {
    this.comparing ??= this.compareOnce().finally(() => (this.comparing = undefined));
    return this.comparing;
  }

  private async compareOnce(): Promise<void> {
    const { applied, lastCommit } = this;
    this.isSuspicious = false;
    try {
      const found = applied > 0 ? await this.api.message({ seq: applied }) : undefined;
      if (found && lastCommit) {
        if (!commitOf(found.data).equals(lastCommit))
          this.lose(`message ${applied} is another one`);
        return;
      }
      const { created, state } = await this.api.info();
      if (created !== this.start.created) this.lose('the stream was made anew');
      else if (state.last_seq < applied)
        this.lose(`the stream ends at ${state.last_seq}, and this replica had ${applied} of it`);
    } catch (error) {
      this.isSuspicious = true;
      if (error instanceof RefusedError && error.code === CODE.streamNotFound)
        this.lose('the stream was deleted');
      else if (error instanceof UnansweredError || error instanceof RefusedError)
        await sleep(RETRY_INTERVAL);
      else throw error;
    }
  }

  /** Ends this replica's work for good. */
  private lose(why: string): AppendError {
    const message = `the stream is not the one that this replica followed: ${why}`;
    if (this.lostBecause === undefined) {
      this.lostBecause = message;
      void this.stop();
      this.options.onLost(message);
    }
    return new AppendError('unavailable', message);
  }

  /** Asks until there is an answer, or throws once `patience` milliseconds are over. */
  private async ask<T>(question: () => Promise<T>, patience = this.options.patience): Promise<T> {
    const end = performance.now() + patience;
    for (;;) {
      try {
        return await question();
      } catch (error) {
        if (error instanceof RefusedError && error.code === CODE.streamNotFound)
          this.lose('the stream was deleted');
        else if (!(error instanceof UnansweredError || error instanceof RefusedError)) throw error;
        if (this.isClosed || performance.now() >= end)
          throw new StoreUnavailableError(`NATS does not answer: ${error.message}`);
        await sleep(RETRY_INTERVAL);
      }
    }
  }
}

const OVERTAKEN: ReadonlySet<number> = new Set([
  CODE.wrongLastSequence,
  CODE.wrongLastSequenceOfBatch,
]);
const FULL: ReadonlySet<number> = new Set([CODE.maxBytes, CODE.storageExceeded]);
const NO_IDS = new Uint32Array(0);

function unavailable(why: string): AppendError {
  return new AppendError(
    'unavailable',
    `NATS did not answer in time (${why}): send the events after "received" again, with the same ids`,
  );
}

function countOf(ids: Uint32Array): number {
  let count = 0;
  for (let i = 0; i < ids.length; i += 2) if (ids[i] !== 0 || ids[i + 1] !== 0) count++;
  return count;
}

/** Returns a function that takes a commit's ids run by run, in order. */
function idsByRun(parts: readonly Uint32Array[]): (run: StoredRun) => Uint32Array {
  let part = 0;
  return ({ count }) => {
    const ids = new Uint32Array(2 * count);
    for (let at = 0; at < ids.length; at += parts[part++].length) ids.set(parts[part], at);
    return ids;
  };
}
