import type { NatsConnection } from '@nats-io/transport-node';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Notices } from '../../telemetry/notices.js';
import type { SetupError } from '../../nats/setup-error.js';
import { throttled } from '../../nats/throttled.js';
import type { Cursor, Position } from '../../wire/cursor.js';
import type { EventBatch } from '../../wire/event-batch.js';
import type { TopicSet } from '../../wire/topic-set.js';
import { QUEUE_BYTES, type QueueBytes } from '../append-queue.js';
import {
  AppendError,
  BackupUnsupportedError,
  type CursorPlace,
  type DedupWindow,
  type Durability,
  EventRepository,
  type EventWriter,
  type HeldTopic,
  type LogStatus,
} from '../event-repository.js';
import { type LogClock, logClock } from '../log-clock.js';
import { LogReport } from '../log-report.js';
import { askOnceAtATime, promptly } from '../promptly.js';
import type { TopicReader } from '../topic-reader.js';
import { NO_DEDUP } from '../recent-ids.js';
import { Janitor } from './janitor.js';
import { firstOf } from './message.js';
import type { ReplicaStart } from './log-state.js';
import { Replica } from './replica.js';
import { StreamSetReader } from './set-reader.js';
import type { StreamSettings } from './stream-config.js';
import { findStart, timeOf } from './stream-start.js';
import { StreamApi } from '../../nats/stream-api.js';

export interface JetStreamOptions extends StreamSettings {
  readonly connection: NatsConnection;
  readonly durability: Durability;
  /** The most topics that may hold events; no limit by default. */
  readonly maxTopics?: number;
  readonly queueBytes?: QueueBytes;
  /** How long (milliseconds) work waits for NATS. */
  readonly patience: number;
  readonly clock?: LogClock;
  /** Receives messages for the operator. */
  readonly notices: Notices;
}

/** The time (milliseconds) between two attempts to join the stream anew. */
const REJOIN_INTERVAL = 5_000;
/** While JetStream refuses, the log says so at most this often (milliseconds). */
const NOTICE_INTERVAL = 10_000;

/**
 * The log of several replicas on a JetStream stream. All that a replica knows of the stream is in a Replica. When the stream
 * turns out to be another one, this log drops it and makes a new one, as at a start. If it was the same all the while, `history`
 * stays what it was.
 */
export class JetStreamLog extends EventRepository {
  override readonly durability: Durability;
  override readonly location: string;
  override history = 0;
  override readonly report: LogReport;

  private readonly dedup: DedupWindow;
  private readonly api: StreamApi;
  private readonly info = askOnceAtATime(() => this.api.info());
  /** Undefined only until open() is done. */
  private replica!: Replica;
  private janitor: Janitor | undefined;
  private clock!: LogClock;
  private listener: (topics: Iterable<string>) => void = () => {};
  private onHistory: () => void = () => {};
  /** The stream's last sequence, as status() knows it. */
  private lastSequence = 0;
  private closing: Promise<void> | undefined;
  private joining: Promise<void> = Promise.resolve();
  /** The replica that joins now. */
  private newcomer: Replica | undefined;
  /** Aborted when the log is closed. */
  private readonly ending = new AbortController();
  /** Ends join(), while that is under way. */
  private refuseJoin: ((error: SetupError) => void) | undefined;
  private readonly logRefused: (message: string) => void;

  /**
   * Opens the log: makes the stream if there is none, and follows it. Waits as long as JetStream does not answer.
   *
   * @throws SetupError if the stream can't be used, or JetStream refuses what only an operator can allow
   */
  static async open(options: JetStreamOptions): Promise<JetStreamLog> {
    const log = new JetStreamLog(options);
    try {
      await log.join();
    } catch (error) {
      await log.close();
      throw error;
    }
    return log;
  }

  private constructor(private readonly options: JetStreamOptions) {
    super();
    const { connection, dedup, stream, durability } = options;
    this.durability = durability;
    this.dedup = dedup.ids === 0 || dedup.milliseconds === 0 ? NO_DEDUP : dedup;
    this.location = `the JetStream stream ${stream}`;
    this.report = new LogReport(options.notices);
    this.logRefused = throttled((message) => options.notices.error(message), NOTICE_INTERVAL);
    this.api = new StreamApi(connection, stream, {
      onConnection: (isConnected) => this.onConnection(isConnected),
      onRefusal: (error) => {
        if (this.refuseJoin) this.refuseJoin(error);
        else this.logRefused(error.message);
      },
    });
  }

  private get isClosed(): boolean {
    return this.ending.signal.aborted;
  }

  override get dedupWindow(): DedupWindow {
    return this.replica.dedupWindow;
  }

  override get head(): Position {
    return this.replica.head;
  }

  override cursorAt(position: Position): Cursor {
    return this.replica.epochs.cursorAt(position);
  }

  override catchUp(cursor?: Cursor): Promise<void> {
    return cursor ? this.replica.catchUpTo(cursor) : this.replica.catchUp();
  }

  override locate(cursor: Cursor): CursorPlace {
    return this.replica.locate(cursor);
  }

  override openWriter(): EventWriter {
    return this.replica.queue.openWriter();
  }

  override read(
    topic: string,
    after: Position,
    maxBytes: number,
  ): EventBatch | undefined | Promise<EventBatch | undefined> {
    const found = this.replica.read(topic, after, maxBytes);
    if (!(found instanceof Promise)) return found;
    return this.outlasting(found, () => this.read(topic, after, maxBytes));
  }

  /**
   * Settles as a read does. If that fails because the stream seems to be another one, it is done again once this log has joined anew. If
   * `history` has changed by then, it fails instead, and so the watch learns why.
   */
  private async outlasting<T>(reading: Promise<T>, again: () => T | Promise<T>): Promise<T> {
    const { replica, history } = this;
    try {
      return await reading;
    } catch (error) {
      await this.joining;
      if (this.replica === replica || this.history !== history) throw error;
      return again();
    }
  }

  override floor(topic: string): Promise<Position> {
    return this.replica.floor(topic);
  }

  override positionBefore(topic: string, since: number): Promise<Position | undefined> {
    return this.replica.positionBefore(topic, this.clock.since(since));
  }

  override positionBeforeLast(topic: string, count: number, head: Position): Promise<Position> {
    return this.replica.positionBeforeLast(topic, count, head);
  }

  override topics(
    prefix: string,
    after: string | undefined,
    limit: number,
  ): Promise<readonly string[]> {
    return this.replica.topics(prefix, after, limit);
  }

  protected override setReader(topics: TopicSet): TopicReader {
    return new StreamSetReader(
      () => this.replica,
      topics,
      (time) => this.clock.since(time),
      (reading, again) => this.outlasting(reading, again),
    );
  }

  override heldOf(topic: string): Promise<HeldTopic | undefined> {
    return this.replica.heldOf(topic);
  }

  override countAfter(topic: string, after: Position): Promise<number> {
    return this.replica.countAfter(topic, after);
  }

  override removeTopic(topic: string): Promise<void> {
    return this.replica.removeTopic(topic);
  }

  override async status(): Promise<LogStatus> {
    const info = await this.info();
    const { replica, api } = this;
    const { head, storedAt, applied } = replica.state;
    const newest = head === 0 ? undefined : { position: head, time: storedAt };
    // Without an answer, nobody knows how long the stream is.
    this.lastSequence = Math.max(applied, info?.state.last_seq ?? this.lastSequence);
    const nats = { isConnected: api.isConnected, lag: this.lastSequence - applied };
    if (!info) return { newest, nats };
    const { bytes, first_seq, first_ts, last_seq } = info.state;
    const oldest =
      last_seq < first_seq ? undefined : { position: firstOf(first_seq), time: timeOf(first_ts) };
    return { heldBytes: bytes, oldest, newest, nats };
  }

  override ageOfNext(topic: string, after: Position): Promise<number | undefined> {
    return promptly(this.replica.ageOfNext(topic, after));
  }

  override backup(): Promise<never> {
    const { stream } = this.options;
    const why =
      `the events are in NATS: \`nats stream backup ${stream} <directory>\` backs them up, and ` +
      '`nats stream restore` restores them (docs/operations.md, "Back up and restore")';
    return Promise.reject(new BackupUnsupportedError(why));
  }

  override onDurable(listener: (topics: Iterable<string>) => void): void {
    this.listener = listener;
  }

  override onHistoryChange(listener: () => void): void {
    this.onHistory = listener;
  }

  override giveUp(): void {
    this.replica.giveUp();
  }

  override close(): Promise<void> {
    this.closing ??= this.end();
    return this.closing;
  }

  private async end(): Promise<void> {
    this.janitor?.stop();
    this.ending.abort();
    await Promise.all([this.replica?.close(), this.newcomer?.close()]);
    await this.joining.catch(() => {});
    await this.options.connection.close();
  }

  /** Joins the stream as it is now. Ends with the first refusal, which no waiting mends. */
  private async join(): Promise<void> {
    const refusal = Promise.withResolvers<never>();
    this.refuseJoin = refusal.reject;
    try {
      await this.joinUnless(refusal.promise);
    } finally {
      this.refuseJoin = undefined;
    }
  }

  private async joinUnless(refusal: Promise<never>): Promise<void> {
    const { patience, retention, maxTopics = Infinity, queueBytes = QUEUE_BYTES } = this.options;
    const start = await Promise.race([this.findStart(), refusal]);
    const { before, lag } = start;
    const clock = this.options.clock ?? logClock({ storedAt: before.storedAt, lag });
    const replica = new Replica(this.api, start, {
      dedup: this.dedup,
      clock,
      retention,
      maxTopics,
      queueBytes,
      patience,
      report: this.report,
      onDurable: (topics) => this.listener(topics),
      onLost: (why) => this.rejoin(replica, why),
    });
    this.newcomer = replica;
    let isSame: boolean;
    try {
      const joining = replica.join().then(() => !this.replica || replica.continues(this.replica));
      isSame = await Promise.race([joining, refusal]);
      if (this.isClosed) throw new AppendError('refused', 'the log is closed');
      // Nobody would join in place of a replica that was lost before it is the log's.
      replica.refuseIfOver();
    } catch (error) {
      await replica.close();
      throw error;
    } finally {
      this.newcomer = undefined;
    }
    this.clock = clock;
    // Positions of another history mean nothing to this replica, so watches must learn of both at once.
    if (!isSame) this.history++;
    this.replica = replica;
    this.janitor?.stop();
    this.janitor = new Janitor(this.api, replica, retention, start.prefix);
  }

  private findStart(): Promise<ReplicaStart> {
    const { api, location, dedup } = this;
    return findStart(api, { ...this.options, location, dedup, isClosed: () => this.isClosed });
  }

  /** The stream seems to have another history now. If it has, watches end. The uploads that are open fail in any case. */
  private rejoin(lost: Replica, why: string): void {
    if (lost !== this.replica || this.isClosed) return;
    this.options.notices.error(why);
    this.joining = this.joinUntilDone();
  }

  private async joinUntilDone(): Promise<void> {
    while (!this.isClosed) {
      try {
        const { history } = this;
        await this.join();
        if (this.history === history)
          this.options.notices.info('the stream has all that this replica had: its watches go on');
        this.onHistory();
        return;
      } catch (error) {
        if (this.isClosed) return;
        this.options.notices.error(`the stream can't be used: ${(error as Error).message}`);
        await sleep(REJOIN_INTERVAL, undefined, { signal: this.ending.signal }).catch(() => {});
      }
    }
  }

  private onConnection(isConnected: boolean): void {
    const { notices } = this.options;
    if (!isConnected) {
      if (!this.isClosed) notices.warn('the connection to NATS is lost');
      return;
    }
    notices.info('connected to NATS again');
    this.replica?.suspect();
  }
}
