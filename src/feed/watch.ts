import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { Bell, type BellListener } from '../broker/bell.js';
import { EventRepository, EventsRemovedError } from '../repository/event-repository.js';
import { promptly } from '../repository/promptly.js';
import type { TopicReader } from '../repository/topic-reader.js';
import { inTurn } from '../repository/turns.js';
import { formatCursor, type Position } from '../wire/cursor.js';
import { Histogram, LATENCY_BOUNDS } from '../telemetry/histogram.js';
import type { EventBatch } from '../wire/event-batch.js';
import type { FrameSource } from '../wire/frames.js';
import { heartbeatEvent } from '../wire/heartbeat.js';
import type { WatchRequest } from '../wire/watch-request.js';
import type { Caller } from './caller.js';
import { FeedError } from './errors.js';
import { type CallRecord, noteTopic } from './live-calls.js';
import { rethrowAsUnavailable } from './store-errors.js';
import { Subscriptions } from './subscriptions.js';
import { type BatchCount, Traffic } from './traffic.js';
import { unlessAborted } from './unless-aborted.js';
import { boundsOf, epochChanged, expired, type WatchStart, watchStart } from './watch-start.js';

/** A watch sends this many bytes of events at a time, and holds no more in memory, however slow its reader is. */
const BATCH_BYTES = 32 * 1024;

export interface OpenWatch {
  readonly start: WatchStart;
  readonly batches: Watch;
}

/** The call that a watch serves: the watch counts what it sends. */
export interface WatchCall extends CallRecord {
  readonly peer: string;
  /** Aborts when nobody waits for the watch any more. */
  readonly signal?: AbortSignal;
}

/** Of the deliveries of one commit to watches that waited for it, the first one is timed, and then one of this many. */
const TIMED_DELIVERIES = 8;

/** Every open watch looks at the log this often (milliseconds), in case a ring was lost. */
const POLL_INTERVAL = 5_000;

/** Opens watches: each reads the log, sends what it found, and waits for the bell when there is no more. */
@Injectable()
export class Watches implements OnApplicationShutdown {
  /** Watches that are being sent to their clients. */
  readonly open = new Set<Watch>();
  /**
   * How long events took from when they came to this process until they were handed to the connection of a watch that was
   * waiting for them. Watches whose clients are slow are not timed.
   */
  readonly deliverySeconds = new Histogram(LATENCY_BOUNDS);
  /** How many watches have ended because events were removed that they had not been sent. */
  overtaken = 0;
  /** Called with each watch that ends so. */
  onOvertaken: (watch: Watch) => void = () => {};
  /** LogReport.newestCameAt of the commit whose deliveries are timed, and how many of them come before the next timed one. */
  private timedCommit = NaN;
  private untimed = 0;
  private readonly poll = setInterval(() => this.ringAll(), POLL_INTERVAL).unref();

  constructor(
    readonly repository: EventRepository,
    readonly bell: Bell,
    readonly traffic: Traffic,
    private readonly subscriptions: Subscriptions,
  ) {
    repository.onHistoryChange(() => this.ringAll());
  }

  /**
   * The batches never end by themselves.
   *
   * @throws FeedError if the request can't be served
   */
  async watch(request: WatchRequest, caller: Caller, call: WatchCall): Promise<OpenWatch> {
    const { topics } = request;
    noteTopic(call, topics[0]);
    if (topics.length > 1) call.notes.topics = topics;
    const starting = watchStart(this.repository, request, caller, call.signal);
    const start = await unlessAborted(starting, call.signal).catch(rethrowAsUnavailable);
    this.subscriptions.claimTopics(call, topics);
    return { start, batches: new Watch(this, topics, start, call) };
  }

  /** Called for each batch of a watch that was waiting when the bell rang. */
  noteDelivery(): void {
    const { newestCameAt } = this.repository.report;
    if (Number.isNaN(newestCameAt)) return;
    if (newestCameAt !== this.timedCommit) {
      this.timedCommit = newestCameAt;
      this.untimed = 0;
    }
    if (this.untimed-- > 0) return;
    this.untimed = TIMED_DELIVERIES - 1;
    this.deliverySeconds.observe((performance.now() - newestCameAt) / 1000);
  }

  private ringAll(): void {
    for (const watch of this.open) watch.onRing();
  }

  onApplicationShutdown(): void {
    clearInterval(this.poll);
  }
}

/**
 * One watch, which sends what it finds and then waits. The reader calls take() for each batch. If there is none, the watch
 * waits until onMore() tells the reader to call take() again: because of a ring, the poll, or a heartbeat that is due.
 */
export class Watch implements FrameSource, BellListener {
  readonly isOver = false;
  /** The watch has sent, or is sending, all events of its topics up to this position. */
  position: Position;
  /** True once the watch has got to the head of the log. */
  hasCaughtUp = false;
  readonly reader: TopicReader;
  private readonly mayLackUpTo: Position;
  /** EventRepository.history, in which `position` means something. */
  private readonly history: number;
  private readonly heartbeat: number;
  private onMore: (() => void) | undefined;
  /** True from a take() that returned a batch to the next take(), which shows that the batch was sent. */
  private isSending = false;
  private sentAt = 0;
  /** True from a take() that found no events to the next one that finds some. */
  private isWaiting = false;
  /** True if the bell has rung while the watch was waiting, and it has not looked at the log since. */
  private isRung = false;
  /** True while the watch is to look at the next part of the log in a turn that comes soon. Until then it takes nothing. */
  private isLookScheduled = false;
  private readonly sent: BatchCount;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly watches: Watches,
    /** Topics and patterns. */
    readonly topics: readonly string[],
    { reader, after, mayLackUpTo, history, heartbeat }: WatchStart,
    readonly call: WatchCall,
  ) {
    this.sent = watches.traffic.sent.ofBatches(topics);
    this.reader = reader;
    this.position = after;
    this.mayLackUpTo = mayLackUpTo;
    this.history = history;
    this.heartbeat = heartbeat;
  }

  open(onMore: () => void): void {
    this.watches.open.add(this);
    this.onMore = onMore;
    if (this.heartbeat > 0) this.sentAt = performance.now();
    this.reader.open(this.mayLackUpTo);
    for (const topic of this.topics) this.watches.bell.subscribe(topic, this);
  }

  onRing(): void {
    this.isRung ||= this.isWaiting;
    this.onMore?.();
  }

  /** Returns true if the watch has more to send, or is still sending, and was not sent all events up to `head`. */
  isBehind(head: Position): boolean {
    const isUpToDate = this.isWaiting && !this.isRung;
    return !isUpToDate && this.position < head && this.history === this.watches.repository.history;
  }

  take(): EventBatch | undefined | Promise<EventBatch | undefined> {
    if (this.heartbeat > 0 && this.isSending) this.sentAt = performance.now();
    this.isSending = false;
    const { repository } = this.watches;
    if (repository.history !== this.history) return this.untilAborted(this.endOfHistory());
    if (this.isLookScheduled) return undefined;
    // Taken before the read, so that all events up to it are among those that the read finds.
    const { head } = repository;
    if (this.position >= head) return this.found(undefined, head);
    try {
      const found = this.reader.read(this.position, BATCH_BYTES);
      if (!(found instanceof Promise)) return this.found(found, head);
      return this.untilAborted(this.finished(found, head));
    } catch (error) {
      return this.failed(error);
    }
  }

  /** The cursor to go on after, which also is that of a watch to which nothing has come yet. */
  get cursor(): string {
    return formatCursor(this.watches.repository.cursorAt(this.position));
  }

  /** Adds the cursor. */
  onAbort(reason: unknown): unknown {
    const isOfThisLog = this.watches.repository.history === this.history;
    return reason instanceof FeedError && isOfThisLog
      ? reason.with({ cursor: this.cursor })
      : reason;
  }

  /**
   * Resolves with how many events of its topics are stored and not sent yet; with undefined if the watch is about to end, if its
   * topics are too many to be counted, or if the store does not say within a second. It never rejects.
   */
  async behind(): Promise<number | undefined> {
    const { repository } = this.watches;
    if (repository.history !== this.history) return undefined;
    return promptly(this.reader.countAfter(this.position));
  }

  close(): void {
    if (!this.onMore) return;
    this.onMore = undefined;
    clearTimeout(this.timer);
    for (const topic of this.topics) this.watches.bell.unsubscribe(topic, this);
    this.reader.close();
    this.watches.open.delete(this);
  }

  /** Resolves as the work does, or with undefined as soon as the call's signal aborts. */
  private async untilAborted(
    work: Promise<EventBatch | undefined>,
  ): Promise<EventBatch | undefined> {
    const { signal } = this.call;
    try {
      return await unlessAborted(work, signal);
    } catch (error) {
      if (signal?.aborted) return undefined;
      throw error;
    }
  }

  private async finished(
    read: Promise<EventBatch | undefined>,
    head: Position,
  ): Promise<EventBatch | undefined> {
    const { signal } = this.call;
    try {
      const batch = await read;
      return signal?.aborted ? undefined : this.found(batch, head);
    } catch (error) {
      return signal?.aborted ? undefined : this.failed(error);
    }
  }

  private found(batch: EventBatch | undefined, head: Position): EventBatch | undefined {
    if (batch?.count === 0) {
      batch = this.lookFurther(batch.last);
    } else if (batch) {
      if (this.call.events === 0) this.call.onMilestone?.('first event');
      this.position = batch.last;
      this.sent.add(batch);
      if (this.isRung) this.watches.noteDelivery();
      this.isWaiting = this.isRung = false;
    } else {
      if (head > this.position) this.position = head;
      if (!this.hasCaughtUp) this.call.onMilestone?.('caught up');
      this.isWaiting = this.hasCaughtUp = true;
      this.isRung = false;
      batch = this.heartbeat > 0 ? this.heartbeatIfDue() : undefined;
    }
    this.isSending = batch !== undefined;
    if (batch) {
      this.call.events += batch.count;
      this.call.bytes += batch.bytes.length;
    }
    return batch;
  }

  /** Nothing is to be sent up to a position, beyond which nobody has looked. Other work has its turn before that is done. */
  private lookFurther(upTo: Position): EventBatch | undefined {
    this.position = upTo;
    this.isWaiting = false;
    this.isLookScheduled = true;
    inTurn(() => {
      this.isLookScheduled = false;
      this.onMore?.();
    });
    return this.heartbeat > 0 ? this.heartbeatIfDue() : undefined;
  }

  private heartbeatIfDue(): EventBatch | undefined {
    const left = this.sentAt + this.heartbeat - performance.now();
    if (left <= 0)
      return heartbeatEvent(this.topics[0], this.watches.repository.cursorAt(this.position));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.onMore?.(), Math.max(1, left));
    return undefined;
  }

  private async endOfHistory(): Promise<never> {
    throw epochChanged(await this.bounds());
  }

  private async bounds(): ReturnType<typeof boundsOf> {
    try {
      return await boundsOf(this.watches.repository, this.reader);
    } catch (error) {
      return rethrowAsUnavailable(error);
    }
  }

  /** If the reader is slow, retention may have removed its next events. Or the log's history has changed during the read. */
  private async failed(error: unknown): Promise<never> {
    if (this.watches.repository.history !== this.history) return this.endOfHistory();
    if (error instanceof EventsRemovedError) {
      this.watches.overtaken++;
      this.watches.onOvertaken(this);
      throw expired(await this.bounds());
    }
    return rethrowAsUnavailable(error);
  }
}
