import { setImmediate as nextTurn } from 'node:timers/promises';
import { Backlog, type Source } from './backlog.js';
import { Backoff, pause, type RetryOptions } from './backoff.js';
import { Callbacks } from './callbacks.js';
import { checkDate, now } from './clock.js';
import { FeedError, isRetryable, UploadError } from './errors.js';
import { type Durability, UploadResult } from './gen/feed/v1/feed.js';
import type { Call } from './grpc/call.js';
import { decode } from './grpc/frames.js';
import type { OpenCall } from './open-call.js';

export interface UploadProgress {
  /** The number of events that were taken from the source. */
  readonly taken: number;
  /** The number of them that are stored. */
  readonly stored: number;
  /** The number of calls that broke and were made again. */
  readonly retries: number;
}

export interface UploadOptions {
  /** Cancels the upload, which then rejects with an UploadError of status CANCELLED. */
  readonly signal?: AbortSignal;
  /**
   * While this many bytes of events wait for their acknowledgement, nothing more is taken from the source; 8 MiB by default.
   */
  readonly maxUnacknowledgedBytes?: number;
  /**
   * The events in doubt: an earlier upload sent the source's first `events` events, with the ids that they have now, at `since`
   * or later, and did not learn whether they are stored. They are sent only within the server's deduplication window. After
   * it, the upload fails with the reason `DEDUP_WINDOW_PASSED`.
   */
  readonly doubtful?: { readonly events: number; readonly since: Date };
  /** Called when events are acknowledged, and when a call breaks. What it throws ends the upload, which rejects with it. */
  readonly onProgress?: (progress: UploadProgress) => void;
  /** Called when a call broke and is to be made again after `wait` milliseconds. What it throws ends the upload in the same way. */
  readonly onRetry?: (reason: FeedError, wait: number) => void;
}

export interface UploadSummary {
  /** The number of events, all of which are stored. */
  readonly stored: number;
  /** The number of them that the log had already, from others or from calls of this upload that broke. */
  readonly duplicates: number;
  /** The cursor of the last event; empty if there was none. */
  readonly lastCursor: string;
  /** How safe the events were when they were acknowledged; undefined if there was none. */
  readonly durability: Durability | undefined;
  /** The number of calls that broke and were made again. */
  readonly retries: number;
}

/** A call ends once it has sent this many bytes of events, because the server acknowledges only at the end of a call. */
const CALL_BYTES = 4 * 2 ** 20;

/** A call also ends this many milliseconds after its first event, so that the events of a slow source are acknowledged. */
const CALL_TIME = 250;

/**
 * An upload waits this many milliseconds for response headers. Without them, its connection may be dead, or the server frozen: the
 * call is made again. A server that sends none on a connection that was opened since, where its HTTP/2 settings have come, is
 * taken for one that sends them with its result, and that recognizes no event that is sent again. So this is longer than a busy
 * server stands still.
 */
const HEADERS_WITHIN = 10_000;

/** Events are sent again within this part of the deduplication window. The rest is for their way to the server. */
const WINDOW_SHARE = 0.75;
/** With these reasons, events after the `received` ones may be stored, too. They are those of the server's mayBeStored(). */
const UNSURE: ReadonlySet<string> = new Set(['INSERT_FAILED', 'STORE_UNAVAILABLE']);

/** A call sends at most this part of the ids that the server remembers, but at least one event: other producers add to them as well. */
const IDS_SHARE = 0.25;

/** For how long, and for how many ids, the server recognizes events that are sent again. Both are 0 if it does not. */
interface DedupWindow {
  readonly milliseconds: number;
  readonly ids: number;
}

/**
 * Stores the events of a source in its order, each once, in calls that follow one another. After a call that broke, the next
 * one sends the same events again, while the server still knows their ids.
 */
export class Upload {
  private readonly backlog: Backlog;
  private readonly backoff: Backoff;
  private readonly callbacks = new Callbacks();
  private readonly signal: AbortSignal;
  private dedupWindow: DedupWindow = { milliseconds: 0, ids: 0 };
  private isWindowKnown = false;
  /** When (now() of clock.ts) the first call began that had no headers within HEADERS_WITHIN, since the last one that had some. */
  private silentSince: number | undefined;
  private stored = 0;
  private duplicates = 0;
  private retries = 0;
  private lastResult: UploadResult | undefined;

  constructor(
    private readonly openCall: OpenCall,
    topic: string,
    source: Source,
    private readonly options: UploadOptions,
    retry: RetryOptions | undefined,
  ) {
    const { maxUnacknowledgedBytes = 2 * CALL_BYTES, signal = new AbortController().signal } =
      options;
    if (!(maxUnacknowledgedBytes > 0))
      throw new TypeError(`maxUnacknowledgedBytes is more than 0, not ${maxUnacknowledgedBytes}`);
    if (typeof source === 'string')
      throw new TypeError('a text is no source of events: put it into a list');
    if (!isSource(source))
      throw new TypeError('the source of an upload is an iterable or an async iterable of events');
    const { doubtful } = options;
    if (doubtful) checkDate('doubtful.since', doubtful.since);
    this.backlog = new Backlog(
      source,
      topic,
      maxUnacknowledgedBytes,
      doubtful && { events: doubtful.events, since: monotonic(doubtful.since) },
    );
    this.backoff = new Backoff(retry);
    this.signal = signal;
  }

  /** @throws UploadError */
  async run(): Promise<UploadSummary> {
    // One promise for the whole upload would keep something of each wait that is raced against it.
    const stop = (): void => this.backlog.stop();
    this.signal.addEventListener('abort', stop);
    if (this.signal.aborted) stop();
    this.backlog.start();
    try {
      for (;;) {
        await this.backlog.wait();
        if (this.signal.aborted) throw new FeedError('CANCELLED', 'the upload was cancelled');
        if (!this.backlog.hasNext) break;
        await this.makeCall();
      }
    } catch (error) {
      throw this.failed(error);
    } finally {
      stop();
      this.signal.removeEventListener('abort', stop);
    }
    if (this.backlog.failure) {
      const cause = this.backlog.failure.error;
      throw this.failed(new FeedError('ABORTED', `the source failed: ${String(cause)}`, { cause }));
    }
    return {
      stored: this.stored,
      duplicates: this.duplicates,
      lastCursor: this.lastResult?.lastCursor ?? '',
      durability: this.lastResult?.durability,
      retries: this.retries,
    };
  }

  /**
   * Sends events of the backlog in one call. Resolves when they are stored; if the call broke, when another one may be made.
   *
   * @throws if no other call may be made
   */
  private async makeCall(): Promise<void> {
    let sentAt: number | undefined;
    try {
      if (!this.isWindowKnown && this.backlog.doubtfulSince !== undefined) await this.askWindow();
      const call = await this.openCall('UploadEvents', this.signal, { timeout: this.timeLeft() });
      try {
        await this.learnWindow(call);
        const result = await this.send(call, (time) => (sentAt ??= time));
        const { unacknowledged } = this.backlog;
        if (result.received !== unacknowledged) throw miscounted(result.received, unacknowledged);
        this.acknowledge(result.received);
        this.duplicates += result.duplicates;
        this.lastResult = result;
        this.backoff.reset();
      } finally {
        call.cancel();
      }
    } catch (error) {
      if (this.callbacks.hasThrown) throw error;
      await this.recover(error, sentAt);
    }
  }

  /**
   * Learns the deduplication window by a call that sends no events. A call that sends events in doubt has the end of the window
   * as its deadline, and sends its deadline before it gets the headers that name the window.
   */
  private async askWindow(): Promise<void> {
    const call = await this.openCall('UploadEvents', this.signal);
    try {
      await this.learnWindow(call);
    } finally {
      call.cancel();
    }
    this.throwIfWindowPassed();
  }

  /**
   * Waits for the headers that name the window: no event is sent before it is known for how long it could be sent again.
   *
   * @throws FeedError UNAVAILABLE if none come, and only a newer connection can show whether the server sends them
   */
  private async learnWindow(call: Call): Promise<void> {
    if (this.isWindowKnown && this.backlog.doubtfulSince === undefined) return;
    const start = now();
    const answered = new AbortController();
    // The next turn reads what came while this process stood still.
    const late = pause(HEADERS_WITHIN, answered.signal).then(() => nextTurn(undefined));
    try {
      const headers = await Promise.race([call.headers(), late]);
      if (headers) {
        this.dedupWindow = windowOf(headers);
        this.silentSince = undefined;
      } else if (call.connectedAt <= (this.silentSince ??= start)) {
        call.endSilent(HEADERS_WITHIN);
        await call.headers(); // It throws.
      }
      this.isWindowKnown = true;
    } finally {
      answered.abort(); // Else the pause keeps the process alive.
    }
  }

  /** Sends batches until the call is large or old enough, or the source has ended. Resolves with the call's result. */
  private async send(call: Call, onSend: (time: number) => void): Promise<UploadResult> {
    const answer = resultOf(call);
    answer.catch(() => {}); // It is awaited below, unless a write fails first.
    const { ids } = this.dedupWindow;
    const maxEvents = ids > 0 ? Math.max(1, Math.floor(ids * IDS_SHARE)) : Infinity;
    const start = now();
    let events = 0;
    let bytes = 0;
    while (events < maxEvents && bytes < CALL_BYTES) {
      const patience = events === 0 ? undefined : start + CALL_TIME - now();
      if (patience !== undefined && patience <= 0) break;
      const isAnswered = await Promise.race([
        this.backlog.wait(patience).then(() => false),
        answer.then(() => true),
      ]);
      const batch = isAnswered ? undefined : this.backlog.next(maxEvents - events);
      if (!batch) break;
      if (batch.doubtfulSince !== undefined) this.throwIfWindowPassed();
      onSend(now());
      await call.write(batch.frames);
      events += batch.count;
      bytes += batch.frames.length;
    }
    call.end();
    return answer;
  }

  private acknowledge(events: number): void {
    if (events === 0) return;
    this.backlog.acknowledge(events);
    this.stored += events;
    this.report();
  }

  /**
   * Notes what a call that broke has stored, and waits before the next attempt.
   *
   * @param sentAt when the call sent its first event (now() of clock.ts), if it sent one
   * @throws the failure, or a FeedError DEDUP_WINDOW_PASSED, if no other call may be made
   */
  private async recover(failure: unknown, sentAt: number | undefined): Promise<void> {
    let error = failure;
    let received = error instanceof FeedError ? error.metadata.received : undefined;
    const { unacknowledged } = this.backlog;
    if (received !== undefined && !isCount(Number(received), unacknowledged)) {
      error = miscounted(received, unacknowledged);
      received = undefined;
    }
    this.acknowledge(Number(received ?? 0));
    // A status with `received` says that nothing after those events is stored, unless the store failed while it wrote. A status
    // without it, whatever its reason, leaves open which events are stored.
    const isExact = received !== undefined && !UNSURE.has((error as FeedError).reason ?? '');
    this.backlog.rewind(isExact ? undefined : sentAt);
    if (this.signal.aborted) throw error;
    if (!isRetryable(error)) throw error;
    this.retries++;
    this.report();
    this.throwIfWindowPassed();
    const reason = error;
    const wait = this.backoff.nextAfter(reason);
    this.callbacks.run(() => this.options.onRetry?.(reason, wait));
    await pause(wait, this.signal);
    this.throwIfWindowPassed();
  }

  /**
   * Returns for how many milliseconds the events in doubt may still be sent again; undefined if none is in doubt, or the window
   * is not known yet.
   */
  private timeLeft(): number | undefined {
    const since = this.backlog.doubtfulSince;
    if (since === undefined || !this.isWindowKnown) return undefined;
    return since + this.dedupWindow.milliseconds * WINDOW_SHARE - now();
  }

  /** @throws FeedError DEDUP_WINDOW_PASSED if it is too late to send the events in doubt again */
  private throwIfWindowPassed(): void {
    if ((this.timeLeft() ?? Infinity) > 0) return;
    const seconds = this.dedupWindow.milliseconds / 1_000;
    const message =
      seconds === 0
        ? 'a call broke, and its events were not sent again: the server does not deduplicate, so it could store them twice'
        : `a call broke, and its events could not be sent again in time for the server's deduplication window of ${seconds} s`;
    throw new FeedError('ABORTED', message, { reason: 'DEDUP_WINDOW_PASSED' });
  }

  /** Returns an UploadError for a FeedError, and other errors and those of callbacks as they are. */
  private failed(error: unknown): unknown {
    if (!(error instanceof FeedError) || this.callbacks.hasThrown) return error;
    const index = error.metadata.index;
    return new UploadError(error, {
      stored: this.stored,
      unknown: this.backlog.doubtful,
      ...(index === undefined
        ? {}
        : { index: this.stored + Number(index) - Number(error.metadata.received ?? 0) }),
    });
  }

  private report(): void {
    const { stored, retries } = this;
    const { taken } = this.backlog;
    this.callbacks.run(() => this.options.onProgress?.({ taken, stored, retries }));
  }
}

function isSource(source: unknown): source is Source {
  return (
    typeof source === 'object' &&
    source !== null &&
    (Symbol.iterator in source || Symbol.asyncIterator in source)
  );
}

/** Converts a time of the system's clock to the clock of now(). */
function monotonic(time: Date): number {
  return now() - Math.max(0, Date.now() - time.getTime());
}

function isCount(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}

/** Returns the error for a count that can't be right. What is stored is then unknown. */
function miscounted(received: number | string, sent: number): FeedError {
  return new FeedError(
    'DATA_LOSS',
    `the server says that ${received} events are stored, of ${sent} that it was sent`,
  );
}

/** Resolves with the call's result once the call has ended with OK. */
async function resultOf(call: Call): Promise<UploadResult> {
  const messages = await call.read();
  while (await call.read());
  if (!messages) throw new FeedError('INTERNAL', 'the server ended the upload without a result');
  return decode(UploadResult, messages[0]);
}

/** Reads the window from response headers. A server that does not name it counts as one without deduplication. */
function windowOf(headers: NodeJS.Dict<string | string[]>): DedupWindow {
  return {
    milliseconds: Number(headers['feed-dedup-window'] ?? 0),
    ids: Number(headers['feed-dedup-ids'] ?? 0),
  };
}
