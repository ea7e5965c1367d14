import { randomBytes } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { mostFrameBytes, writeEventFrame } from './event-frame.js';
import { offsetAfter } from './grpc/frames.js';

/** An event to upload. A string is the body of one. */
export interface NewEvent {
  /** Unique in its topic; made at random if it is missing. An event with an id that is stored already is a duplicate. */
  readonly id?: string;
  /** The upload's topic by default. */
  readonly topic?: string;
  readonly body?: string;
  /** The server's time by default. */
  readonly at?: Date;
}

export type Source = Iterable<NewEvent | string> | AsyncIterable<NewEvent | string>;

/** Framed events, written at once. */
export interface Batch {
  frames: Buffer;
  count: number;
  /** When (now() of clock.ts) they were first sent in a call that broke, if the log may hold them. */
  doubtfulSince?: number;
}

/** A batch is closed at this size. */
const BATCH_BYTES = 64 * 2 ** 10;

/**
 * The events that were taken from an upload's source and are not acknowledged yet, in order, as batches. The source is
 * asked for more only while they take less than `maxBytes`.
 */
export class Backlog {
  /** So many events were taken from the source. */
  taken = 0;
  /** All that is not acknowledged; the first `sent` of them were handed out by next(). */
  private readonly batches: Batch[] = [];
  private sent = 0;
  private bytes = 0;
  private readonly runId = randomBytes(9).toString('base64url');
  private open: Buffer = Buffer.allocUnsafe(BATCH_BYTES);
  private openBytes = 0;
  private openCount = 0;
  private isFlushScheduled = false;
  private isStopped = false;
  private end: { readonly error?: unknown } | undefined;
  /** Wake whoever waits in wait(). */
  private readonly waiting = new Set<() => void>();
  private wakeFiller: (() => void) | undefined;

  constructor(
    source: Source,
    private readonly topic: string,
    private readonly maxBytes: number,
    /** The source's first `events` events may be in the log since an earlier upload, which sent them at `since`. */
    private readonly earlier?: { readonly events: number; readonly since: number },
  ) {
    void this.fill(source).then(
      () => this.finish({}),
      (error: unknown) => this.finish({ error }),
    );
  }

  /**
   * Resolves when there is a batch for next(), when the source has ended, or after so many milliseconds. It takes nothing, so
   * whoever waits may stop waiting.
   */
  async wait(timeout?: number): Promise<void> {
    if (this.hasNext || this.end) return;
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.waiting.delete(wake);
        resolve();
      };
      const timer = timeout === undefined ? undefined : setTimeout(wake, Math.max(0, timeout));
      this.waiting.add(wake);
    });
  }

  /** True if there is a batch that was not handed out since the last rewind(). */
  get hasNext(): boolean {
    return this.sent < this.batches.length;
  }

  /** Hands out the next batch, if there is one. */
  next(): Batch | undefined {
    return this.hasNext ? this.batches[this.sent++] : undefined;
  }

  /** What the source failed with, once all that came before was handed out. */
  get failure(): { readonly error?: unknown } | undefined {
    return this.end && 'error' in this.end ? this.end : undefined;
  }

  /** The number of events that next() has handed out and that are not acknowledged. */
  get unacknowledged(): number {
    return count(this.batches.slice(0, this.sent));
  }

  /** The number of events that the log may hold. */
  get doubtful(): number {
    return count(this.batches.filter(({ doubtfulSince }) => doubtfulSince !== undefined));
  }

  /** When the first of the doubtful events was sent (now() of clock.ts). */
  get doubtfulSince(): number | undefined {
    return this.batches.find(({ doubtfulSince }) => doubtfulSince !== undefined)?.doubtfulSince;
  }

  /** Forgets the first `events` events: they are stored. */
  acknowledge(events: number): void {
    let left = events;
    while (left > 0 && this.batches.length > 0) {
      const [first] = this.batches;
      if (first.count > left) {
        const at = offsetAfter(first.frames, left);
        first.frames = first.frames.subarray(at);
        first.count -= left;
        this.bytes -= at;
        break;
      }
      left -= first.count;
      this.bytes -= first.frames.length;
      this.batches.shift();
      this.sent--;
    }
    if (this.bytes < this.maxBytes) this.wakeFiller?.();
  }

  /**
   * Makes next() begin with the first event that is not acknowledged.
   *
   * @param sentAt when the broken call sent its first event, if the log may hold what it sent
   */
  rewind(sentAt: number | undefined): void {
    for (const batch of this.batches.slice(0, this.sent)) {
      if (sentAt !== undefined) batch.doubtfulSince ??= sentAt;
    }
    this.sent = 0;
  }

  /** Takes nothing more from the source. */
  stop(): void {
    this.isStopped = true;
    this.wakeFiller?.();
  }

  private async fill(source: Source): Promise<void> {
    if (Symbol.asyncIterator in source) {
      for await (const event of source) {
        if (this.isStopped) return;
        if (this.add(event)) await this.room();
      }
    } else {
      for (const event of source) {
        if (this.isStopped) return;
        if (this.add(event)) await this.room();
      }
    }
  }

  /** Encodes an event. Returns true when the batch was closed, so that others should have their turn. */
  private add(event: NewEvent | string): boolean {
    const {
      id,
      topic = this.topic,
      body = '',
      at,
    } = typeof event === 'string' ? { body: event } : asEvent(event, this.taken);
    if (![id ?? '', topic, body].every(isText)) throw noEvent(this.taken);
    const next = { id: id || `${this.runId}-${this.taken}`, topic, body, at };
    const size = mostFrameBytes(next);
    let isClosed = false;
    if (this.openBytes + size > this.open.length) {
      isClosed = this.openCount > 0;
      this.close();
      if (size > this.open.length) this.open = Buffer.allocUnsafe(Math.max(size, BATCH_BYTES));
    }
    this.openBytes = writeEventFrame(this.open, this.openBytes, next);
    this.openCount++;
    this.taken++;
    if (!this.isFlushScheduled) {
      // A source that is slower than a turn of the event loop gets its event sent at once.
      this.isFlushScheduled = true;
      setImmediate(() => {
        this.isFlushScheduled = false;
        this.close();
      });
    }
    return isClosed;
  }

  private close(): void {
    if (this.openCount === 0) return;
    const frames = this.open.subarray(0, this.openBytes);
    const isDoubtful = this.earlier && this.taken - this.openCount < this.earlier.events;
    this.batches.push({
      frames,
      count: this.openCount,
      ...(isDoubtful ? { doubtfulSince: this.earlier.since } : {}),
    });
    this.bytes += frames.length;
    // The rest of the buffer is for the next batch; add() makes another one when it does not fit there.
    this.open = this.open.subarray(this.openBytes);
    this.openBytes = 0;
    this.openCount = 0;
    this.wake();
  }

  private async room(): Promise<void> {
    await nextTurn();
    while (this.bytes >= this.maxBytes && !this.isStopped) {
      await new Promise<void>((resolve) => (this.wakeFiller = resolve));
    }
  }

  private wake(): void {
    for (const wake of this.waiting) wake();
  }

  private finish(end: { readonly error?: unknown }): void {
    this.close();
    this.end = end;
    this.wake();
  }
}

/** @throws TypeError for what has none of an event's fields, or a time that is none: it would be stored as an empty event */
function asEvent(event: NewEvent, index: number): NewEvent {
  const isEvent =
    event !== null &&
    typeof event === 'object' &&
    ['id', 'topic', 'body', 'at'].some((field) => field in event);
  if (!isEvent) throw noEvent(index);
  const { at } = event;
  if (at !== undefined && !(at instanceof Date && Number.isFinite(at.getTime())))
    throw noEvent(index);
  return event;
}

/** UTF-8 has no half of a surrogate pair: two ids that differ in one would be the same to the server. */
function isText(value: unknown): boolean {
  return typeof value === 'string' && value.isWellFormed();
}

function noEvent(index: number): TypeError {
  return new TypeError(
    `event ${index} can't be sent: an event is a text, or an object with id, topic and body as texts of whole Unicode ` +
      'characters and at as a valid Date',
  );
}

function count(batches: readonly Batch[]): number {
  return batches.reduce((sum, batch) => sum + batch.count, 0);
}
