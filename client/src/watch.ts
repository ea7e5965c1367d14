import { abortWith } from './abort-with.js';
import { abortedByConsumer } from './aborted-by-consumer.js';
import { Backoff, pause, type RetryOptions } from './backoff.js';
import { Callbacks } from './callbacks.js';
import {
  type Checkpoint,
  type CheckpointInterval,
  CheckpointSaver,
  type Saved,
} from './checkpoint.js';
import { checkDate, LONGEST_TIMER } from './clock.js';
import { isAtOrAfter } from './cursor.js';
import { EncodedEvent } from './encoded.js';
import { CursorExpiredError, FeedError, feedError, isRetryable } from './errors.js';
import { Event, StartPosition, type WatchRequest } from './gen/feed/v1/feed.js';
import type { Call } from './grpc/call.js';
import { decode, frame } from './grpc/frames.js';
import { type OpenCall, orAborted } from './open-call.js';
import { checkText } from './texts.js';
import { areSeveral } from './topics.js';
import { watchRequest } from './watch-request.js';

/**
 * Where a watch begins: with the events stored from now on, with the oldest that is still held, after an event's cursor,
 * with those stored since a time (by the server's clock), or with the newest n. `earliest` is Watch.earliest of the watch that
 * the cursor is of, if it had one.
 */
export type From =
  'live' | 'earliest' | Saved | { readonly since: Date } | { readonly last: number };

/** The state of a watch. */
export type WatchState =
  /** It connects for the first time. */
  | { readonly name: 'connecting' }
  /** It gets events that were stored before it connected. */
  | { readonly name: 'behind' }
  /** It has got all of those, and gets each new event as it is stored. */
  | { readonly name: 'live' }
  /**
   * It broke, and connects again after `wait` milliseconds. `attempt` counts from 1 since the last event or heartbeat. With the
   * reason `MOVED`, nothing is wrong: the server wants it to go on over another connection, which it does at once.
   */
  | {
      readonly name: 'reconnecting';
      readonly reason: FeedError;
      readonly attempt: number;
      readonly wait: number;
    }
  /**
   * Retention removed events after the cursor `after` before they were read. A watch of one topic goes on after `earliest`; one of
   * several topics goes on with all that is left after `after`, and from `earliest` on all is left.
   */
  | { readonly name: 'gap'; readonly after: string; readonly earliest: string }
  /** It ended, by its consumer, its signal or an error. */
  | { readonly name: 'ended' };

export interface WatchOptions {
  /**
   * Where to begin if the checkpoint has no cursor; `live` by default. The cursor of a live watch is saved as soon as it has begun. With
   * `since` or `last`, there is none before the first event is handled: a process that ends before that begins by `from` again.
   */
  readonly from?: From;
  /** Ends the watch: its iteration is then done, without an error. */
  readonly signal?: AbortSignal;
  /** Keeps the cursor across runs of the process. What its load() or save() fails with ends the watch, whatever kind of error it is. */
  readonly checkpoint?: Checkpoint;
  /** How often the checkpoint is saved: by default after 100 events, or 1,000 milliseconds. */
  readonly checkpointEvery?: CheckpointInterval;
  /** `head` ends the watch, without an error, after the events that were stored when it began. */
  readonly until?: 'head';
  /**
   * The reaction when retention removed events before they were read: `throw` a CursorExpiredError (the default), or go on
   * with the `earliest` that is left, after the state `gap`.
   */
  readonly expired?: 'throw' | 'earliest';
  /**
   * The server sends a sign of life after this many milliseconds of silence: at least 1,000, by default 10,000, or 1,000 with
   * `until`. A watch that is silent for two and a half times as long is given up and resumed.
   */
  readonly heartbeat?: number;
  /** Called at each change of the state. What it throws ends the watch. */
  readonly onState?: (state: WatchState) => void;
  /** @internal True for events that are only to be uploaded elsewhere: EncodedEvent decodes them. */
  readonly areEncoded?: boolean;
}

/** The largest `last`: the contract has it as a uint32. */
const MOST_LAST = 2 ** 32 - 1;

/** A watch gives its call up after this many heartbeat intervals in which nothing came. */
export const MISSED_HEARTBEATS = 2.5;

/**
 * The events of its topics, each once and in the order of the log, whatever happens to the server and the network. Iterate over it
 * once. The iteration throws a FeedError that another attempt would not mend, and what the checkpoint fails with.
 *
 * An event counts as handled when its consumer asks for the next one. Events that the consumer has not asked for stay at the
 * server, except for those that fit in the stream's window.
 */
export class Watch implements AsyncIterable<Event>, AsyncDisposable {
  private readonly backoff: Backoff;
  private readonly saver: CheckpointSaver | undefined;
  private readonly callbacks = new Callbacks();
  private readonly stopping = new AbortController();
  private readonly heartbeat: number;
  private from!: From;
  private readonly isOfSeveral: boolean;
  /**
   * The `feed-earliest` of the call that began a watch of several topics. The log then held every event after it, but only some of
   * those before it, with which the watch may have begun.
   */
  private startEarliest: string | undefined;
  /** With `until`: the cursor at which the watch ends (see endAt); undefined before the headers of its first call. */
  private end: string | undefined;
  private isAtEnd = false;
  /**
   * The cursor of the last event or heartbeat that came. The next call goes on after it, because all events that came are
   * handed out before the watch connects again.
   */
  private received: string | undefined;
  /** The cursor of the event that was handed out last; undefined once that event counts as handled. */
  private handedOut: string | undefined;
  /** The cursor of the last event that counts as handled, or of a heartbeat after it. */
  private handled: string | undefined;
  private state: WatchState = { name: 'connecting' };
  private iteration: AsyncGenerator<Event, void, void> | undefined;

  /** @internal */
  constructor(
    private readonly openCall: OpenCall,
    /** Topics and patterns. */
    readonly topics: readonly string[],
    private readonly options: WatchOptions,
    private readonly closing: AbortSignal,
    retry: RetryOptions | undefined,
  ) {
    const { checkpoint, checkpointEvery, from = 'live', until, expired } = options;
    const { heartbeat = until ? 1_000 : 10_000 } = options;
    if (!(heartbeat >= 1_000))
      throw new TypeError(`heartbeat is at least 1,000 milliseconds, not ${heartbeat}`);
    if (until !== undefined && until !== 'head')
      throw new TypeError(`until is 'head', not ${String(until)}`);
    if (![undefined, 'throw', 'earliest'].includes(expired))
      throw new TypeError(`expired is 'throw' or 'earliest', not ${expired}`);
    checkFrom(from);
    this.backoff = new Backoff(retry);
    this.saver = checkpoint && new CheckpointSaver(checkpoint, checkpointEvery);
    this.isOfSeveral = areSeveral(topics);
    this.beginAt(from);
    this.heartbeat = Math.min(heartbeat, LONGEST_TIMER);
  }

  /** Fires when the watch is to end, whoever wants that. */
  private get signal(): AbortSignal {
    return this.stopping.signal;
  }

  /**
   * The cursor after which a watch would go on: that of the last event that was handled, or of a heartbeat after it. Before the first one
   * it is where the watch has begun; undefined where no cursor says that.
   */
  get cursor(): string | undefined {
    return this.handled;
  }

  /**
   * A cursor to keep with `cursor`, for the `from` of another watch; undefined if there is none. There is one while a watch of several
   * topics reads what is older than all that the log was sure to hold when it began: some events after `cursor` may have been
   * removed before that, and so would end a watch that does not know of them.
   */
  get earliest(): string | undefined {
    return this.isBeforeEarliest(this.handled ?? '') ? this.startEarliest : undefined;
  }

  /** Counts the event that was handed out last as handled, for a consumer that stops without asking for the next one. */
  accept(): void {
    if (this.handedOut === undefined) return;
    this.handled = this.handedOut;
    this.handedOut = undefined;
    this.saver?.move(this.handled, 1, this.earliest);
  }

  [Symbol.asyncIterator](): AsyncIterator<Event, void, void> {
    if (this.iteration) throw new Error('a watch can be iterated over once: make another one');
    this.iteration = abortedByConsumer(this.events(), this.stopping);
    return this.iteration;
  }

  /** Ends the watch and saves its checkpoint. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.stopping.abort();
    await this.iteration?.return();
  }

  private async *events(): AsyncGenerator<Event, void, void> {
    const release = abortWith(this.stopping, this.options.signal, this.closing);
    try {
      this.enter({ name: 'connecting' });
      const saved = await this.load();
      if (saved) this.beginAt(typeof saved === 'string' ? { cursor: saved } : saved);
      while (!this.signal.aborted && !this.isAtEnd) {
        try {
          yield* this.eventsUntilBreak();
        } catch (error) {
          if (this.signal.aborted) return;
          if (this.callbacks.hasThrown) throw error; // A callback has thrown it, and no call broke.
          this.saver?.throwIfFailed();
          await this.recover(error);
        }
      }
    } finally {
      try {
        await this.saver?.finish();
      } finally {
        release();
        this.enter({ name: 'ended' });
      }
    }
  }

  /** Returns what the checkpoint has; undefined if the watch ends before that is known. */
  private async load(): Promise<string | Saved | undefined> {
    const { checkpoint } = this.options;
    if (!checkpoint) return undefined;
    try {
      return await orAborted(checkpoint.load(), this.signal);
    } catch (error) {
      if (this.signal.aborted) return undefined;
      throw error;
    }
  }

  private async *eventsUntilBreak(): AsyncGenerator<Event, void, void> {
    const type = this.options.areEncoded ? EncodedEvent : Event;
    const call = await this.openCall('Watch', this.signal);
    try {
      call.endAfterSilence(this.heartbeat * MISSED_HEARTBEATS);
      const request = this.request();
      await call.write(frame(watchRequest(request)));
      call.end();
      const head = await this.begin(call, request);
      while (!this.isAtEnd) {
        const messages = await call.read();
        if (!messages) throw new FeedError('UNAVAILABLE', 'the server ended the watch');
        this.backoff.reset();
        for (const message of messages) {
          const event = decode(type, message);
          // A watch that went on after an empty cursor would skip all that was stored meanwhile.
          if (event.cursor === '') throw new FeedError('DATA_LOSS', 'an event has no cursor');
          if (event.id === '') {
            this.noteHeartbeat(event.cursor, head);
          } else if (this.end === undefined || isAtOrAfter(this.end, event.cursor)) {
            this.received = event.cursor;
            this.handedOut = event.cursor;
            yield event;
            this.accept();
            if (this.state.name !== 'live' && isAtOrAfter(event.cursor, head))
              this.enter({ name: 'live' });
          }
          this.noteEnd(event.cursor);
          if (this.signal.aborted || this.isAtEnd) return;
        }
      }
    } finally {
      call.cancel();
    }
  }

  private request(): Partial<WatchRequest> {
    const { from, topics } = this;
    const request: Partial<WatchRequest> = {
      // A server that knows only `topic` would watch that one and ignore the others, or take a pattern for a wrong topic.
      ...(this.isOfSeveral ? { topics: [...topics] } : { topic: topics[0] }),
      heartbeat: durationOf(this.heartbeat),
    };
    if (this.received !== undefined) request.afterCursor = this.received;
    else if (from === 'live') request.position = StartPosition.START_POSITION_LIVE;
    else if (from === 'earliest') request.position = StartPosition.START_POSITION_EARLIEST;
    else if ('cursor' in from) request.afterCursor = from.cursor;
    // Nothing was stored before 1970. The generated code encodes earlier times with parts of a second in a way that no server takes.
    else if ('since' in from) request.since = new Date(Math.max(0, from.since.getTime()));
    else request.last = from.last;
    if (request.afterCursor !== undefined)
      request.skipRemoved = this.isBeforeEarliest(request.afterCursor);
    return request;
  }

  /** Sets where the watch begins, before its first call. */
  private beginAt(from: From): void {
    this.from = isCursor(from) && from.cursor === '' ? 'live' : from;
    this.startEarliest = this.isOfSeveral && isCursor(from) ? from.earliest : undefined;
  }

  /** True if the log may have lacked events after this cursor already when the watch began. */
  private isBeforeEarliest(cursor: string): boolean {
    return this.startEarliest !== undefined && !isAtOrAfter(cursor, this.startEarliest);
  }

  /** Waits for the response headers, and enters the states that follow from them. Returns the cursor of the log's end. */
  private async begin(call: Call, request: Partial<WatchRequest>): Promise<string> {
    const headers = await call.headers();
    const head = String(headers['feed-head'] ?? '');
    if (this.options.until === 'head') this.endAt(head);
    const isLive =
      this.received === undefined && (this.from === 'live' || startsAtHead(this.from, head));
    // A live watch goes on after this cursor if it breaks before its first event, and so misses nothing.
    if (isLive) this.received = head;
    if (this.isOfSeveral) this.noteEarliest(headers['feed-earliest'], head, request);
    const start = this.received ?? (isCursor(this.from) ? this.from.cursor : '');
    // Whoever stops or dies before the first event is handled goes on after this as well.
    if (start !== '' && this.handled === undefined) {
      this.handled = start;
      this.saver?.begin(start, this.earliest);
    }
    this.enter({ name: isLive || isAtOrAfter(start, head) ? 'live' : 'behind' });
    this.noteEnd(start);
    return head;
  }

  /**
   * Remembers `feed-earliest` if the watch begins. If it goes on before that, and `feed-earliest` is later by now, events have been
   * removed that the log held when the watch began, and skip_removed has hidden that.
   */
  private noteEarliest(
    header: string | string[] | undefined,
    head: string,
    { afterCursor, skipRemoved }: Partial<WatchRequest>,
  ): void {
    if (header === undefined) return;
    const earliest = String(header);
    if (afterCursor === undefined) {
      this.startEarliest = earliest;
    } else if (skipRemoved && !isAtOrAfter(this.startEarliest!, earliest)) {
      if (this.options.expired !== 'earliest')
        throw feedError(
          'OUT_OF_RANGE',
          'events after this cursor, which were held when the watch began, have been removed since: go on, knowing that there is a gap',
          { reason: 'CURSOR_EXPIRED', metadata: { earliest, head } },
        );
      this.enter({ name: 'gap', after: afterCursor, earliest });
      this.startEarliest = earliest;
    }
  }

  /**
   * The server sends a heartbeat only after all events of the topics before its cursor. The consumer has asked for the next event, so
   * all of them count as handled. The watch is live at the end of the log only: far behind, a server that finds nothing for long
   * says up to where it has looked.
   */
  private noteHeartbeat(cursor: string, head: string): void {
    this.moveTo(cursor);
    if (this.state.name !== 'live' && isAtOrAfter(cursor, head)) this.enter({ name: 'live' });
  }

  /**
   * Sets where a watch with `until` ends. While nothing has come, each call sets it anew: the log may have been emptied since the call
   * before, and then has no event at or after the head of that call for a long time, or ever.
   */
  private endAt(head: string): void {
    if (head === '')
      throw new FeedError('UNAVAILABLE', 'the server does not say where its log ends');
    if (this.end === undefined || this.received === undefined) this.end = head;
  }

  /** With `until`, ends the watch if the log had no event after this cursor when it began. */
  private noteEnd(cursor: string): void {
    this.isAtEnd ||= this.end !== undefined && isAtOrAfter(cursor, this.end);
  }

  /** Goes on after a cursor before which no event is left. */
  private moveTo(cursor: string): void {
    this.received = cursor;
    this.handled = cursor;
    this.saver?.move(cursor, 0, this.earliest);
  }

  /** Waits before the next attempt. @throws the error, if another attempt would fail as well */
  private async recover(error: unknown): Promise<void> {
    const expired = error instanceof CursorExpiredError && this.options.expired === 'earliest';
    if (expired && error.earliest) {
      const { earliest } = error;
      this.enter({ name: 'gap', after: this.request().afterCursor ?? '', earliest });
      // Other topics may still hold events from before `earliest`: the next call skips what was removed.
      if (this.isOfSeveral) this.startEarliest = earliest;
      else this.received = earliest;
      // Retention may be faster than the watch, again and again.
      await pause(this.backoff.next(), this.signal);
      return;
    }
    if (!isRetryable(error)) throw this.explained(error);
    // All that came is handed out by now, and the server has sent nothing that did not come.
    if (error.metadata.cursor) this.moveTo(error.metadata.cursor);
    const wait = this.backoff.nextAfter(error);
    this.enter({ name: 'reconnecting', reason: error, attempt: this.backoff.attempt, wait });
    await pause(wait, this.signal);
  }

  /** A server of a version that knows one topic only sees an empty topic in a request for several. Later ones say which topic is wrong. */
  private explained(error: unknown): unknown {
    if (!(error instanceof FeedError) || error.reason !== 'TOPIC_INVALID' || !this.isOfSeveral)
      return error;
    const { status, message, reason, metadata } = error;
    if (metadata.index !== undefined || metadata.most !== undefined) return error;
    return feedError(
      status,
      `${message}; the server is too old for several topics or a pattern in a watch: it has to be updated`,
      { reason, metadata, cause: error },
    );
  }

  private enter(state: WatchState): void {
    this.state = state;
    this.callbacks.run(() => this.options.onState?.(state));
  }
}

/** @throws TypeError or RangeError, which names what is wrong */
function checkFrom(from: From): void {
  if (from === 'live' || from === 'earliest') return;
  if (typeof from !== 'object' || from === null)
    throw new TypeError(
      `from is 'live', 'earliest', { cursor }, { since } or { last }, not ${String(from)}`,
    );
  if ('cursor' in from) checkText('from.cursor', from.cursor);
  else if ('since' in from) checkDate('from.since', from.since);
  else if (!Number.isInteger(from.last) || from.last < 0 || from.last > MOST_LAST)
    throw new RangeError(`from.last is a whole number from 0 to 4,294,967,295, not ${from.last}`);
}

function isCursor(from: From): from is Saved {
  return typeof from === 'object' && 'cursor' in from;
}

/** True if nothing is stored between this start and the head: the start is the head's cursor, or the newest 0 events. */
function startsAtHead(from: From, head: string): boolean {
  if (typeof from === 'string') return false;
  return 'cursor' in from ? from.cursor === head : 'last' in from && from.last === 0;
}

function durationOf(milliseconds: number) {
  const seconds = Math.floor(milliseconds / 1_000);
  return { seconds, nanos: Math.round((milliseconds - seconds * 1_000) * 1e6) };
}
