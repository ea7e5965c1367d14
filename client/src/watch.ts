import { Backoff, pause, type RetryOptions } from './backoff.js';
import { type Checkpoint, type CheckpointInterval, CheckpointSaver } from './checkpoint.js';
import { LONGEST_TIMER } from './clock.js';
import { CursorExpiredError, FeedError, isRetryable } from './errors.js';
import { Event, StartPosition, type WatchRequest } from './gen/feed/v1/feed.js';
import type { Call } from './grpc/call.js';
import { decode, frame } from './grpc/frames.js';
import type { OpenCall } from './open-call.js';
import { watchRequest } from './watch-request.js';

/**
 * Where a watch begins: with the events stored from now on, with the oldest that is still held, after an event's cursor,
 * with those stored since a time (by the server's clock), or with the newest n.
 */
export type From =
  | 'live'
  | 'earliest'
  | { readonly cursor: string }
  | { readonly since: Date }
  | { readonly last: number };

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
  /** Retention removed events after the cursor `after` before they were read; it goes on after `earliest`. */
  | { readonly name: 'gap'; readonly after: string; readonly earliest: string }
  /** It ended, by its consumer, its signal or an error. */
  | { readonly name: 'ended' };

export interface WatchOptions {
  /** Where to begin if the checkpoint has no cursor; `live` by default. */
  readonly from?: From;
  /** Ends the watch: its iteration is then done, without an error. */
  readonly signal?: AbortSignal;
  /** Keeps the cursor across runs of the process. What its load() or save() fails with ends the watch. */
  readonly checkpoint?: Checkpoint;
  /** How often the checkpoint is saved: by default after 100 events, or 1,000 milliseconds. */
  readonly checkpointEvery?: CheckpointInterval;
  /**
   * The reaction when retention removed events before they were read: `throw` a CursorExpiredError (the default), or go on
   * from the `earliest` that is left, after the state `gap`.
   */
  readonly expired?: 'throw' | 'earliest';
  /**
   * The server sends a sign of life after this many milliseconds of silence: at least 1,000, by default 10,000. A watch that
   * is silent for two and a half times as long is given up and resumed.
   */
  readonly heartbeat?: number;
  /** Called at each change of the state. */
  readonly onState?: (state: WatchState) => void;
}

/** A watch gives its call up after this many heartbeat intervals in which nothing came. */
export const MISSED_HEARTBEATS = 2.5;

/**
 * The events of a topic, each once and in order, whatever happens to the server and the network. Iterate over it once. The
 * iteration throws a FeedError that another attempt would not mend, and what the checkpoint fails with.
 *
 * An event counts as handled when its consumer asks for the next one. Events that the consumer has not asked for stay at the
 * server, except for those that fit in the stream's window.
 */
export class Watch implements AsyncIterable<Event>, AsyncDisposable {
  private readonly backoff: Backoff;
  private readonly saver: CheckpointSaver | undefined;
  private readonly stopping = new AbortController();
  private readonly signal: AbortSignal;
  private readonly heartbeat: number;
  private from: From;
  /**
   * The cursor of the last event or heartbeat that came. The next call goes on after it, because all events that came are
   * handed out before the watch connects again.
   */
  private received: string | undefined;
  /** The cursor of the event that the consumer has in hand; undefined once that event counts as handled. */
  private handedOut: string | undefined;
  /** The cursor of the last event that counts as handled, or of a heartbeat after it. */
  private handled: string | undefined;
  private state: WatchState = { name: 'connecting' };
  private iteration: AsyncGenerator<Event, void, void> | undefined;

  /** @internal */
  constructor(
    private readonly openCall: OpenCall,
    readonly topic: string,
    private readonly options: WatchOptions,
    retry: RetryOptions | undefined,
  ) {
    const { checkpoint, checkpointEvery, from = 'live', heartbeat = 10_000, signal } = options;
    if (!(heartbeat >= 1_000))
      throw new TypeError(`heartbeat is at least 1,000 milliseconds, not ${heartbeat}`);
    this.backoff = new Backoff(retry);
    this.saver = checkpoint && new CheckpointSaver(checkpoint, checkpointEvery);
    this.from = isCursor(from) && from.cursor === '' ? 'live' : from;
    this.heartbeat = Math.min(heartbeat, LONGEST_TIMER);
    this.signal = signal ? AbortSignal.any([signal, this.stopping.signal]) : this.stopping.signal;
  }

  /** The cursor after which a watch would go on: that of the last event that was handled, or of a heartbeat after it. */
  get cursor(): string | undefined {
    return this.handled;
  }

  /** Counts the event that was handed out last as handled, for a consumer that stops without asking for the next one. */
  accept(): void {
    if (this.handedOut === undefined) return;
    this.handled = this.handedOut;
    this.handedOut = undefined;
    this.saver?.move(this.handled, 1);
  }

  [Symbol.asyncIterator](): AsyncIterator<Event, void, void> {
    if (this.iteration) throw new Error('a watch can be iterated over once: make another one');
    this.iteration = this.events();
    return this.iteration;
  }

  /** Ends the watch and saves its checkpoint. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.stopping.abort();
    await this.iteration?.return();
  }

  private async *events(): AsyncGenerator<Event, void, void> {
    try {
      this.enter({ name: 'connecting' });
      const saved = await this.options.checkpoint?.load();
      if (saved) this.from = { cursor: saved };
      while (!this.signal.aborted) {
        try {
          yield* this.eventsUntilBreak();
        } catch (error) {
          if (this.signal.aborted) return;
          await this.recover(error);
        }
      }
    } finally {
      try {
        await this.saver?.finish();
      } finally {
        this.enter({ name: 'ended' });
      }
    }
  }

  private async *eventsUntilBreak(): AsyncGenerator<Event, void, void> {
    const call = await this.openCall('Watch', this.signal);
    try {
      call.endAfterSilence(this.heartbeat * MISSED_HEARTBEATS);
      await call.write(frame(watchRequest(this.request())));
      call.end();
      const head = await this.headOf(call);
      for (;;) {
        const messages = await call.read();
        if (!messages) throw new FeedError('UNAVAILABLE', 'the server ended the watch');
        this.backoff.reset();
        for (const message of messages) {
          const event = decode(Event, message);
          // A watch that went on after an empty cursor would skip all that was stored meanwhile.
          if (event.cursor === '') throw new FeedError('DATA_LOSS', 'an event has no cursor');
          if (event.id === '') {
            this.noteHeartbeat(event.cursor);
            continue;
          }
          this.received = event.cursor;
          this.handedOut = event.cursor;
          yield event;
          this.accept();
          if (this.state.name !== 'live' && isAtOrAfter(event.cursor, head))
            this.enter({ name: 'live' });
          if (this.signal.aborted) return;
        }
      }
    } finally {
      call.cancel();
    }
  }

  private request(): Partial<WatchRequest> {
    const { from, topic } = this;
    const request: Partial<WatchRequest> = { topic, heartbeat: durationOf(this.heartbeat) };
    if (this.received !== undefined) request.afterCursor = this.received;
    else if (from === 'live') request.position = StartPosition.START_POSITION_LIVE;
    else if (from === 'earliest') request.position = StartPosition.START_POSITION_EARLIEST;
    else if ('cursor' in from) request.afterCursor = from.cursor;
    else if ('since' in from) request.since = from.since;
    else request.last = from.last;
    return request;
  }

  /** Waits for the response headers, and enters the state that follows from them. Returns the cursor of the log's end. */
  private async headOf(call: Call): Promise<string> {
    const headers = await call.headers();
    const head = String(headers['feed-head'] ?? '');
    const isLive =
      this.received === undefined && (this.from === 'live' || startsAtHead(this.from, head));
    // A live watch goes on after this cursor if it breaks before its first event, and so misses nothing.
    if (isLive) this.received = head;
    const start = this.received ?? (isCursor(this.from) ? this.from.cursor : '');
    this.enter({ name: isLive || isAtOrAfter(start, head) ? 'live' : 'behind' });
    return head;
  }

  /**
   * The server sends a heartbeat only after all events before its cursor, so the watch is live. The consumer has asked for the
   * next event, so all of them count as handled.
   */
  private noteHeartbeat(cursor: string): void {
    this.moveTo(cursor);
    if (this.state.name !== 'live') this.enter({ name: 'live' });
  }

  /** Goes on after a cursor before which no event is left. */
  private moveTo(cursor: string): void {
    this.received = cursor;
    this.handled = cursor;
    this.saver?.move(cursor, 0);
  }

  /** Waits before the next attempt. @throws the error, if another attempt would fail as well */
  private async recover(error: unknown): Promise<void> {
    const expired = error instanceof CursorExpiredError && this.options.expired === 'earliest';
    if (expired && error.earliest) {
      const { earliest } = error;
      this.enter({ name: 'gap', after: this.request().afterCursor ?? '', earliest });
      this.received = earliest;
      // Retention may be faster than the watch, again and again.
      await pause(this.backoff.next(), this.signal);
      return;
    }
    if (!isRetryable(error)) throw error;
    // All that came is handed out by now, and the server has sent nothing that did not come.
    if (error.metadata.cursor) this.moveTo(error.metadata.cursor);
    const wait = this.backoff.nextAfter(error);
    this.enter({ name: 'reconnecting', reason: error, attempt: this.backoff.attempt, wait });
    await pause(wait, this.signal);
  }

  private enter(state: WatchState): void {
    this.state = state;
    this.options.onState?.(state);
  }
}

function isCursor(from: From): from is { readonly cursor: string } {
  return typeof from === 'object' && 'cursor' in from;
}

/** True if nothing is stored between this start and the head: the start is the head's cursor, or the newest 0 events. */
function startsAtHead(from: From, head: string): boolean {
  if (typeof from === 'string') return false;
  return 'cursor' in from ? from.cursor === head : 'last' in from && from.last === 0;
}

/** A cursor ends with the six characters of its epoch: `0000000002fc406w` is position `0000000002` of epoch `fc406w`. */
const EPOCH_CHARS = 6;

/**
 * Compares the position of a cursor that the server took as a start with that of its head. The epochs may differ: positions
 * of one log compare as text all the same (docs/protocol.md, "Names").
 */
function isAtOrAfter(cursor: string, head: string): boolean {
  return cursor.slice(0, -EPOCH_CHARS) >= head.slice(0, -EPOCH_CHARS);
}

function durationOf(milliseconds: number) {
  const seconds = Math.floor(milliseconds / 1_000);
  return { seconds, nanos: Math.round((milliseconds - seconds * 1_000) * 1e6) };
}
