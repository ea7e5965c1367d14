import { Backlog, type Source } from './backlog.js';
import { Backoff, pause, type RetryOptions } from './backoff.js';
import { now } from './clock.js';
import { FeedError, isRetryable, UploadError } from './errors.js';
import { type Durability, UploadResult } from './gen/feed/v1/feed.js';
import type { Call } from './grpc/call.js';
import { decode } from './grpc/frames.js';
import type { OpenCall } from './open-call.js';

export interface UploadProgress {
  /** So many events were taken from the source. */
  readonly taken: number;
  /** So many of them are stored. */
  readonly stored: number;
  /** So many calls broke and were made again. */
  readonly retries: number;
}

export interface UploadOptions {
  /** Cancels the upload, which then rejects with an UploadError of status CANCELLED. */
  readonly signal?: AbortSignal;
  /** Bytes of events that may wait for their acknowledgement; 8 MiB by default. The source waits beyond that. */
  readonly maxUnacknowledgedBytes?: number;
  /**
   * The source's first `events` events have ids of their own and were sent by an earlier upload, at `since` or later, which
   * did not learn whether they are stored. They are sent within the server's deduplication window, or not at all: then the
   * upload fails with the reason `DEDUP_WINDOW_PASSED`.
   */
  readonly doubtful?: { readonly events: number; readonly since: Date };
  /** Called when events were stored, and when a call breaks. */
  readonly onProgress?: (progress: UploadProgress) => void;
  /** Called when a call broke and is to be made again after `wait` milliseconds. */
  readonly onRetry?: (reason: FeedError, wait: number) => void;
}

export interface UploadSummary {
  /** The number of events, all of which are stored. */
  readonly stored: number;
  /** So many of them were stored before, by others or by this upload's own calls that broke. */
  readonly duplicates: number;
  /** The cursor of the last event; empty if there was none. */
  readonly lastCursor: string;
  /** How safe the events were when they were acknowledged; undefined if there was none. */
  readonly durability: Durability | undefined;
  readonly retries: number;
}

/** A call ends after so many bytes of events: the server acknowledges only at the end of a call. */
const CALL_BYTES = 4 * 2 ** 20;

/** A call also ends this many milliseconds after its first event, so that the events of a slow source are acknowledged. */
const ACKNOWLEDGED_WITHIN = 250;

/** An upload begins after this many milliseconds, even if the server has sent no response headers. */
const HEADERS_WITHIN = 2_000;

/** The part of the deduplication window within which events are sent again. The rest is for their way to the server. */
const WINDOW_SHARE = 0.75;

/** What the server says of its deduplication in the response headers of an upload. */
interface DedupWindow {
  readonly milliseconds: number;
  readonly ids: number;
}

/**
 * Stores the events of a source in its order, each once, in calls that follow one another. A call that broke is made again
 * with the same events while the server still knows their ids.
 */
export class Upload {
  private readonly backlog: Backlog;
  private readonly backoff: Backoff;
  private readonly signal: AbortSignal;
  private window: DedupWindow = { milliseconds: 0, ids: 0 };
  private isWindowKnown = false;
  private stored = 0;
  private duplicates = 0;
  private retries = 0;
  private last: UploadResult | undefined;

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
    const { doubtful } = options;
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
    const wake = new AbortController();
    const aborted = new Promise<void>((resolve) => {
      if (this.signal.aborted) resolve();
      else this.signal.addEventListener('abort', () => resolve(), { signal: wake.signal });
    });
    try {
      for (;;) {
        await Promise.race([this.backlog.wait(), aborted]);
        if (this.signal.aborted) throw new FeedError('CANCELLED', 'the upload was cancelled');
        if (!this.backlog.hasNext) break;
        await this.oneCall();
      }
    } catch (error) {
      throw this.failed(error);
    } finally {
      this.backlog.stop();
      wake.abort();
    }
    if (this.backlog.failure) {
      const cause = this.backlog.failure.error;
      throw this.failed(new FeedError('ABORTED', `the source failed: ${String(cause)}`, { cause }));
    }
    return {
      stored: this.stored,
      duplicates: this.duplicates,
      lastCursor: this.last?.lastCursor ?? '',
      durability: this.last?.durability,
      retries: this.retries,
    };
  }

  /** Sends what the backlog has in one call. Returns when it is stored, or when it can be tried again. */
  private async oneCall(): Promise<void> {
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
        this.last = result;
        this.backoff.reset();
      } finally {
        call.cancel();
      }
    } catch (error) {
      await this.recover(error, sentAt);
    }
  }

  /** What an earlier upload sent has a deadline, which a call must have from its start: so a call of its own asks for it. */
  private async askWindow(): Promise<void> {
    const call = await this.openCall('UploadEvents', this.signal);
    try {
      await this.learnWindow(call);
    } finally {
      call.cancel();
    }
    this.checkDoubt();
  }

  /** Nothing is sent before it is known for how long it could be sent again. */
  private async learnWindow(call: Call): Promise<void> {
    if (this.isWindowKnown && this.backlog.doubtfulSince === undefined) return;
    const enough = new AbortController();
    const headers = await Promise.race([
      call.headers(),
      pause(HEADERS_WITHIN, enough.signal), // A server of an earlier version sends them with its answer.
    ]);
    enough.abort();
    this.isWindowKnown = true;
    if (headers) this.window = windowOf(headers);
  }

  private async send(call: Call, onSend: (time: number) => void): Promise<UploadResult> {
    const answer = answerOf(call);
    answer.catch(() => {}); // It is awaited below, unless a write fails first.
    const maxEvents = Math.max(1, Math.floor(this.window.ids / 4) || Infinity);
    const start = now();
    let events = 0;
    let bytes = 0;
    while (events < maxEvents && bytes < CALL_BYTES) {
      const patience = events === 0 ? undefined : start + ACKNOWLEDGED_WITHIN - now();
      if (patience !== undefined && patience <= 0) break;
      const isAnswered = await Promise.race([
        this.backlog.wait(patience).then(() => false),
        answer.then(() => true),
      ]);
      const batch = isAnswered ? undefined : this.backlog.next();
      if (!batch) break;
      if (batch.doubtfulSince !== undefined) this.checkDoubt();
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

  private async recover(failure: unknown, sentAt: number | undefined): Promise<void> {
    let error = failure;
    let received = error instanceof FeedError ? error.metadata.received : undefined;
    const { unacknowledged } = this.backlog;
    if (received !== undefined && !isCount(Number(received), unacknowledged)) {
      error = miscounted(received, unacknowledged);
      received = undefined;
    }
    this.acknowledge(Number(received ?? 0));
    // A status with `received` says that nothing after those events is stored, unless the store failed while it wrote.
    const isExact = received !== undefined && (error as FeedError).reason !== 'INSERT_FAILED';
    this.backlog.rewind(isExact ? undefined : sentAt);
    if (this.signal.aborted) throw error;
    if (!isRetryable(error)) throw error;
    this.retries++;
    this.report();
    this.checkDoubt();
    const wait = this.backoff.next();
    this.options.onRetry?.(error, wait);
    await pause(wait, this.signal);
    this.checkDoubt();
  }

  /** Milliseconds during which the server knows the ids of all events that it may have stored. */
  private timeLeft(): number | undefined {
    const since = this.backlog.doubtfulSince;
    if (since === undefined || !this.isWindowKnown) return undefined;
    return since + this.window.milliseconds * WINDOW_SHARE - now();
  }

  /** @throws FeedError if it is too late to send again what may be stored */
  private checkDoubt(): void {
    if ((this.timeLeft() ?? Infinity) > 0) return;
    const seconds = this.window.milliseconds / 1_000;
    const message =
      seconds === 0
        ? 'the server does not recognize events that are sent again, so the upload can not go on'
        : `the upload could not be made again within the server's deduplication window of ${seconds} s`;
    throw new FeedError('ABORTED', message, { reason: 'DEDUP_WINDOW_PASSED' });
  }

  private failed(error: unknown): unknown {
    if (!(error instanceof FeedError)) return error;
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
    this.options.onProgress?.({ taken: this.backlog.taken, stored, retries });
  }
}

/** The time on the clock of now(). */
function monotonic(time: Date): number {
  return now() - Math.max(0, Date.now() - time.getTime());
}

function isCount(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}

/** Nothing more can be said of what is stored, and events that were never sent must not count as such. */
function miscounted(received: number | string, sent: number): FeedError {
  return new FeedError(
    'DATA_LOSS',
    `the server says that ${received} events are stored, of ${sent} that it was sent`,
  );
}

async function answerOf(call: Call): Promise<UploadResult> {
  const messages = await call.read();
  while (await call.read());
  if (!messages) throw new FeedError('INTERNAL', 'the server ended the upload without a result');
  return decode(UploadResult, messages[0]);
}

/** A server that says nothing of its window is not trusted to have one. */
function windowOf(headers: NodeJS.Dict<string | string[]>): DedupWindow {
  return {
    milliseconds: Number(headers['feed-dedup-window'] ?? 0),
    ids: Number(headers['feed-dedup-ids'] ?? 0),
  };
}
