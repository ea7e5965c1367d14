import { Injectable } from '@nestjs/common';
import { Durability, type UploadResult } from '../gen/feed/v1/feed.js';
import {
  type AppendError,
  type DedupWindow,
  EventRepository,
  type EventWriter,
} from '../repository/event-repository.js';
import { TooManyTopicsError } from '../repository/topic-limit.js';
import { type CheckedEvents, EventChecker } from '../wire/check-events.js';
import { type Cursor, formatCursor } from '../wire/cursor.js';
import { BadCompressionError, BadMessageError, type ReceivedFrames } from '../wire/frames.js';
import { type Caller, forbidden } from './caller.js';
import { compressionRefused, FeedError } from './errors.js';
import { LimitHits } from './limit-hits.js';
import type { CallRecord } from './live-calls.js';
import { mayBeStored, writeFailed } from './store-errors.js';
import { Traffic } from './traffic.js';
import { UploadRates } from './upload-rates.js';

/** UploadResult.received is an int32. */
const MAX_EVENTS = 2 ** 31 - 1;

const DURABILITY = {
  memory: Durability.DURABILITY_MEMORY,
  fsync: Durability.DURABILITY_FSYNC,
  replicated: Durability.DURABILITY_REPLICATED,
} as const;

/**
 * The call of an upload: the upload counts what it receives and what of it is pending, and waits no longer once the signal
 * aborts.
 */
export interface UploadCall extends CallRecord {
  readonly peer: string;
  readonly signal: AbortSignal;
  /** How many of its batches are not stored yet, or are held back by its caller's rate. At 0, the upload waits for its client. */
  pending: number;
}

/** Stores streams of events. */
@Injectable()
export class Uploads {
  /** Uploads under way. */
  open = 0;

  constructor(
    private readonly repository: EventRepository,
    private readonly rates: UploadRates = new UploadRates({ events: 0, bytes: 0 }),
    private readonly traffic: Traffic = new Traffic(),
    private readonly hits: LimitHits = new LimitHits(),
    private readonly maxEventBytes = Infinity,
  ) {}

  /** Events that a producer sends again within this window are not stored twice. Both numbers are 0 if that is off. */
  get dedupWindow(): DedupWindow {
    return this.repository.dedupWindow;
  }

  /**
   * Stores a stream of events, and resolves when all of them are durable. However the stream ends, each event that was
   * taken from it is durable or refused when this settles.
   *
   * @throws FeedError with `received`, how many of the stream's first events are stored; without it if an operator has ended the
   * upload and more of them may be stored (docs/protocol.md, promise 10)
   */
  async upload(
    stream: AsyncIterable<ReceivedFrames>,
    caller: Caller,
    call: UploadCall,
    maxEvents: number = MAX_EVENTS,
  ): Promise<UploadResult> {
    if (!caller.may('upload')) throw forbidden(caller, 'upload', undefined, { received: '0' });
    this.open++;
    const frames = stream[Symbol.asyncIterator]();
    const mayUse = (topic: string): boolean => caller.may('upload', topic);
    const checker = new EventChecker(maxEvents, mayUse, this.maxEventBytes);
    const appends = new Appends(this.repository.openWriter(), call, this.traffic);
    // Ends the stream at once: the client's next event may be a long time coming.
    void appends.failed.then(() => frames.return?.());
    let streamError: unknown;
    try {
      await this.store(frames, checker, appends, call);
    } catch (error) {
      streamError = error;
    } finally {
      void frames.return?.();
      call.onMilestone?.('last event');
      await appends.settled();
      call.onMilestone?.('stored');
      this.open--;
    }
    const { received, duplicates, last, failure } = appends;
    const count = { received: String(received) };
    if (failure instanceof TooManyTopicsError) this.hits.add('FEED_MAX_TOPICS');
    const operatorsEnd = operatorsEndOf(call);
    // With `received`, the client would take the events after it for not stored.
    if (operatorsEnd)
      throw failure && mayBeStored(failure) ? operatorsEnd : operatorsEnd.with(count);
    if (failure) throw writeFailed(failure, count);
    if (checker.problem) {
      const { index, problem, forbiddenTopic } = checker.problem;
      if (forbiddenTopic !== undefined)
        throw forbidden(caller, 'upload', forbiddenTopic, { index: String(index), ...count });
      throw invalidEvent(index, problem, count);
    }
    if (checker.isFull) throw tooLong(maxEvents, count);
    if (streamError) throw withReceived(streamError, checker.count, count);
    return {
      received,
      duplicates,
      lastCursor: last ? formatCursor(last) : '',
      durability: DURABILITY[this.repository.durability],
    };
  }

  /** Appends what the frames hold until they end, an event is not valid, or an append fails. */
  private async store(
    frames: AsyncIterator<ReceivedFrames>,
    checker: EventChecker,
    appends: Appends,
    call: UploadCall,
  ): Promise<void> {
    for (;;) {
      // The checker may have stopped amid the last frames, and goes on there.
      let taken = checker.rest;
      if (!taken) {
        const next = await frames.next();
        if (next.done) return;
        taken = next.value;
      }
      if (appends.failure) return;
      const events = checker.check(taken);
      if (events.count > 0) appends.add(events);
      if (checker.problem || checker.isFull) return;
      const room = appends.writer.room();
      if (room) await room;
      const { notes, peer } = call;
      const wait = this.rates.take(notes.principal ?? peer, events.count, events.bytes);
      if (wait > 0) await appends.hold((signal) => this.rates.hold(wait, signal));
    }
  }
}

/** Appends the events of one upload to the log, and counts those that are stored. */
class Appends {
  /** How many of the upload's first events are stored, duplicates among them. */
  received = 0;
  duplicates = 0;
  /** The cursor of the last event that is stored. */
  last: Cursor | undefined;
  /** Why an append failed. Nothing after it is stored. */
  failure: AppendError | undefined;
  /** Appends settle in order, so the newest one settles after all others. */
  private newest: Promise<void> | undefined;
  /** Resolves once an append has failed. */
  readonly failed: Promise<void>;
  private readonly onFailed: () => void;
  /** Aborts once an append has failed. Only an upload that was held has it. */
  private failing: AbortController | undefined;

  constructor(
    readonly writer: EventWriter,
    private readonly call: UploadCall,
    private readonly traffic: Traffic,
  ) {
    ({ promise: this.failed, resolve: this.onFailed } = Promise.withResolvers<void>());
  }

  add(events: CheckedEvents): void {
    const { call, traffic } = this;
    if (call.events === 0) call.onMilestone?.('first event');
    call.events += events.count;
    call.bytes += events.bytes;
    traffic.received.add(events);
    call.notes.topic ??= events.topics[0].topic;
    call.pending++;
    this.newest = this.writer.append(events).then(
      (appended) => {
        call.pending--;
        this.received += events.count;
        this.duplicates += appended.duplicates;
        traffic.duplicates += appended.duplicates;
        this.last = appended.last;
      },
      (error: AppendError) => {
        call.pending--;
        this.failure ??= error;
        this.onFailed();
        this.failing?.abort();
      },
    );
  }

  /**
   * Waits for the caller's turn, and no longer once an append has failed. The call counts it as a batch that is pending. Rejects
   * with the reason of the call's signal once that aborts.
   *
   * @param turn waits, and rejects once its signal aborts
   */
  async hold(turn: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { call } = this;
    if (this.failure) return;
    this.failing ??= new AbortController();
    call.pending++;
    try {
      await turn(AbortSignal.any([call.signal, this.failing.signal]));
    } catch (error) {
      if (!this.failure) throw error;
    } finally {
      call.pending--;
    }
  }

  /** Resolves once each append is stored or has failed; undefined if there is none. */
  settled(): Promise<void> | undefined {
    return this.newest;
  }
}

/**
 * Returns the error of an upload that an operator has ended, if one has. It counts more than anything else, because EndStream has told
 * the operator that the client gets it. An upload that is ended for any other reason, and has sent all, still gets its result.
 */
function operatorsEndOf({ signal }: UploadCall): FeedError | undefined {
  const reason: unknown = signal.reason;
  return reason instanceof FeedError && reason.reason === 'ENDED_BY_OPERATOR' ? reason : undefined;
}

function invalidEvent(index: number, problem: string, received: { received: string }): FeedError {
  const metadata = { index: String(index), ...received };
  return new FeedError('EVENT_INVALID', `event ${index}: ${problem}`, metadata);
}

function tooLong(maxEvents: number, received: { received: string }): FeedError {
  const message = `an upload has at most ${maxEvents} events: go on with a new one`;
  return new FeedError('UPLOAD_TOO_LONG', message, received);
}

/** Returns the error that ended the stream, with what the client needs to continue. */
function withReceived(error: unknown, index: number, received: { received: string }): unknown {
  if (error instanceof BadMessageError) return invalidEvent(index, error.message, received);
  if (error instanceof BadCompressionError) return compressionRefused(error).with(received);
  if (!(error instanceof FeedError)) return error;
  return error.with(received);
}
