import { randomBytes } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { encodedOf } from './encoded.js';
import { maxFrameBytes, writeEventFrame } from './event-frame.js';
import { frameBytes, offsetAfter, writeFrame } from './grpc/frames.js';
import { isText } from './texts.js';
import { withTrace } from './trace.js';

/** An event to upload. */
export interface NewEvent {
  /** Unique in its topic; made at random if it is missing. An event whose id the server still knows is not stored again. */
  readonly id?: string;
  /** The upload's topic by default. */
  readonly topic?: string;
  /** Empty by default. */
  readonly body?: string;
  /** The server's time by default. */
  readonly at?: Date;
  /**
   * Texts with names that travel beside the body: at most 64, which take 8 KiB in all. Where the process has set up
   * OpenTelemetry and there is no `traceparent`, the client adds it, and what else the process propagates. Both are of the span
   * in which the source gives the event.
   */
  readonly attributes?: Readonly<Record<string, string>>;
}

/** The events of an upload. A string is the body of an event. */
export type Source = Iterable<NewEvent | string> | AsyncIterable<NewEvent | string>;

/** Framed events that are written together. */
interface Batch {
  frames: Buffer;
  /** The number of events. */
  count: number;
  /** When (now() of clock.ts) they were first sent in a call that broke, if the log may hold them. */
  doubtfulSince?: number;
}

/** A batch is closed before it exceeds this size, unless one event does. */
const BATCH_BYTES = 64 * 2 ** 10;

/**
 * The events that were taken from an upload's source and are not acknowledged yet, in order, as batches. The source is
 * asked for more only while they take less than `maxBytes`.
 */
export class Backlog {
  /** The number of events that were taken from the source. */
  taken = 0;
  /** The closed batches that are not acknowledged. next() has handed out the first `sent` of them. */
  private readonly batches: Batch[] = [];
  private sent = 0;
  private bytes = 0;
  /** The beginning of the ids that this upload makes: `<runId>-<index in the source>`. */
  private readonly runId = randomBytes(9).toString('base64url');
  /** The batch that is being filled: its first `openBytes` bytes are the frames of `openCount` events. */
  private open: Buffer = Buffer.allocUnsafe(BATCH_BYTES);
  private openBytes = 0;
  private openCount = 0;
  private isCloseScheduled = false;
  private isStopped = false;
  /** Calls the return() of an async source; undefined for another one, and before the source is asked for its first event. */
  private leaveSource: (() => Promise<void>) | undefined;
  /** Set once the source has ended. */
  private end: { readonly error?: unknown } | undefined;
  /** Those that wait in wait(). */
  private readonly waiting = new Set<() => void>();
  private wakeFiller: (() => void) | undefined;

  constructor(
    private readonly source: Source,
    private readonly topic: string,
    private readonly maxBytes: number,
    /** The source's first `events` events may be stored: an earlier upload sent them at `since` (now() of clock.ts). */
    private readonly earlier?: { readonly events: number; readonly since: number },
  ) {}

  /** Begins to take events from the source. After stop(), it takes none. */
  start(): void {
    if (this.isStopped) return;
    void this.fill(this.source).then(
      () => this.finish({}),
      (error: unknown) => this.finish({ error }),
    );
  }

  /**
   * Resolves when there is a batch for next(), when the source has ended, after stop(), or after `timeout` milliseconds, if they are
   * given. It takes nothing, so its caller may stop waiting for it.
   */
  async wait(timeout?: number): Promise<void> {
    if (this.hasNext || this.end || this.isStopped) return;
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

  /** Hands out the next batch, if there is one. What it has beyond `most` events stays here as a batch of its own. */
  next(most = Infinity): Batch | undefined {
    if (!this.hasNext) return undefined;
    const batch = this.batches[this.sent++];
    if (batch.count > most) {
      const at = offsetAfter(batch.frames, most);
      const rest = { ...batch, frames: batch.frames.subarray(at), count: batch.count - most };
      this.batches.splice(this.sent, 0, rest);
      batch.frames = batch.frames.subarray(0, at);
      batch.count = most;
    }
    return batch;
  }

  /** The error that the source failed with, if it did. Events that it gave before can still be handed out. */
  get failure(): { readonly error?: unknown } | undefined {
    return this.end && 'error' in this.end ? this.end : undefined;
  }

  /** The number of events that next() has handed out and that are not acknowledged. */
  get unacknowledged(): number {
    return count(this.batches.slice(0, this.sent));
  }

  /** The number of events in doubt: they were sent, and it is unknown whether they are stored. */
  get doubtful(): number {
    return count(this.batches.filter(({ doubtfulSince }) => doubtfulSince !== undefined));
  }

  /** When the first of the doubtful events was sent (now() of clock.ts). */
  get doubtfulSince(): number | undefined {
    return this.batches.find(({ doubtfulSince }) => doubtfulSince !== undefined)?.doubtfulSince;
  }

  /** Forgets the first `events` events, which are stored, and so makes room for others. */
  acknowledge(events: number): void {
    let left = events;
    let done = 0;
    while (left > 0 && done < this.batches.length) {
      const first = this.batches[done];
      if (first.count > left) {
        const at = offsetAfter(first.frames, left);
        first.frames = first.frames.subarray(at);
        first.count -= left;
        this.bytes -= at;
        break;
      }
      left -= first.count;
      this.bytes -= first.frames.length;
      done++;
    }
    // A shift() for each batch would move all the batches after it each time.
    this.batches.splice(0, done);
    this.sent -= done;
    if (this.hasRoom) this.wakeFiller?.();
  }

  /**
   * Makes next() begin with the first event that is not acknowledged.
   *
   * @param sentAt when the broken call sent its first event (now() of clock.ts): what it sent is now in doubt. Undefined if none of
   * it can be stored
   */
  rewind(sentAt: number | undefined): void {
    for (const batch of this.batches.slice(0, this.sent)) {
      if (sentAt !== undefined) batch.doubtfulSince ??= sentAt;
    }
    this.sent = 0;
  }

  /**
   * Takes nothing more from the source, and lets nobody wait for it. The source's return() is called, also while its next() is pending:
   * a watch, for example, would stay open otherwise. Nobody waits for return(), and its error is nobody's.
   */
  stop(): void {
    this.isStopped = true;
    if (!this.end) this.leaveSource?.().catch(() => {});
    this.wakeFiller?.();
    this.wake();
  }

  private async fill(source: Source): Promise<void> {
    if (Symbol.asyncIterator in source) {
      for await (const event of this.leavable(source)) {
        if (this.isStopped) return;
        if (this.add(event) || !this.hasRoom) await this.waitForRoom();
        if (this.isStopped) return; // Another event would be taken and lost.
      }
    } else {
      for (const event of source) {
        if (this.isStopped) return;
        if (this.add(event)) await this.waitForRoom(); // The batches grow at no other time.
        if (this.isStopped) return;
      }
    }
  }

  /** Returns the source for one loop, and sets `leaveSource`. Both call the source's return(), which is called once. */
  private leavable<T>(source: AsyncIterable<T>): AsyncIterable<T> {
    const iterator = source[Symbol.asyncIterator]();
    let isLeft = false;
    const leave = async (): Promise<void> => {
      if (isLeft) return;
      isLeft = true;
      await iterator.return?.();
    };
    this.leaveSource = leave;
    return {
      [Symbol.asyncIterator]: () => ({
        next: () => iterator.next(),
        return: async () => {
          await leave();
          return { done: true, value: undefined };
        },
      }),
    };
  }

  private get hasRoom(): boolean {
    return this.bytes < this.maxBytes;
  }

  /** Adds an event to the open batch. Returns true if that closed a batch. */
  private add(event: NewEvent | string): boolean {
    const encoded = encodedOf(event);
    if (encoded)
      return this.append(frameBytes(encoded), (target, offset) =>
        writeFrame(target, offset, encoded),
      );
    const {
      id,
      topic = this.topic,
      body = '',
      at,
      attributes,
    } = typeof event === 'string' ? { body: event } : asEvent(event, this.taken);
    if (![id ?? '', topic, body].every(isText)) throw noEvent(this.taken);
    const next = {
      id: id || `${this.runId}-${this.taken}`,
      topic,
      body,
      at,
      attributes: withTrace(attributes),
    };
    return this.append(maxFrameBytes(next), (target, offset) =>
      writeEventFrame(target, offset, next),
    );
  }

  /**
   * Appends a frame of at most `size` bytes to the open batch, or to a new one. Returns true if that closed a batch.
   *
   * @param write writes the frame at an offset, and returns the offset after it
   */
  private append(size: number, write: (target: Buffer, offset: number) => number): boolean {
    let isClosed = false;
    if (this.openBytes + size > this.open.length) {
      isClosed = this.openCount > 0;
      this.close();
      if (size > this.open.length) this.open = Buffer.allocUnsafe(Math.max(size, BATCH_BYTES));
    }
    this.openBytes = write(this.open, this.openBytes);
    this.openCount++;
    this.taken++;
    if (!this.isCloseScheduled) {
      // The batch is closed at the end of the turn, however small: the events of a slow source do not wait for more.
      this.isCloseScheduled = true;
      setImmediate(() => {
        this.isCloseScheduled = false;
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
    // The next batch uses the rest of the buffer. add() allocates another buffer for an event that does not fit there.
    this.open = this.open.subarray(this.openBytes);
    this.openBytes = 0;
    this.openCount = 0;
    this.wake();
  }

  /** Waits for the next turn, which closes the open batch, and then until there is room. */
  private async waitForRoom(): Promise<void> {
    await nextTurn(); // A source that never waits would keep the event loop from sending.
    while (!this.hasRoom && !this.isStopped) {
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
    ['id', 'topic', 'body', 'at', 'attributes'].some((field) => field in event);
  if (!isEvent) throw noEvent(index);
  const { at, attributes } = event;
  if (at !== undefined && !(at instanceof Date && Number.isFinite(at.getTime())))
    throw noEvent(index);
  if (attributes !== undefined && !areTexts(attributes)) throw noEvent(index);
  return event;
}

/** Returns true for an object whose names and values are texts that UTF-8 can have, such as the attributes of an event. */
export function areTexts(value: unknown): value is Readonly<Record<string, string>> {
  if (typeof value !== 'object' || value === null) return false;
  // A Map would be sent as nothing, and an array with its indices as names.
  if (Symbol.iterator in value) return false;
  return Object.entries(value).flat().every(isText);
}

function noEvent(index: number): TypeError {
  return new TypeError(
    `event ${index} can't be sent: an event is a text, or an object with id, topic and body as texts of whole Unicode ` +
      'characters, at as a valid Date and attributes as an object of texts',
  );
}

function count(batches: readonly Batch[]): number {
  return batches.reduce((sum, batch) => sum + batch.count, 0);
}
