import { Injectable } from '@nestjs/common';
import { Durability, type UploadResult } from '../gen/feed/v1/feed.js';
import {
  type AppendError,
  type DedupWindow,
  EventRepository,
} from '../repository/event-repository.js';
import { TooManyTopicsError } from '../repository/topic-limit.js';
import { EventChecker } from '../wire/check-events.js';
import { type Cursor, formatCursor } from '../wire/cursor.js';
import { BadMessageError, type ReceivedFrames } from '../wire/frames.js';
import { type Caller, forbidden } from './caller.js';
import { FeedError } from './errors.js';
import { LimitHits } from './limit-hits.js';
import type { CallRecord } from './live-calls.js';
import { writeFailed } from './store-errors.js';
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
  ) {}

  /** Events that a producer sends again within this window are not stored twice. Both numbers are 0 if that is off. */
  get dedupWindow(): DedupWindow {
    return this.repository.dedupWindow;
  }

  /**
   * Stores a stream of events, and resolves when all of them are durable. However the stream ends, each event that was
   * taken from it is durable or refused when this settles.
   *
   * @throws FeedError with `received`, how many of the stream's first events are stored
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
    const writer = this.repository.openWriter();
    const checker = new EventChecker(maxEvents, (topic) => caller.may('upload', topic));
    let received = 0;
    let duplicates = 0;
    let last: Cursor | undefined;
    let failure: AppendError | undefined;
    let streamError: unknown;
    // Appends settle in order, so the last one settles after all others.
    let lastAppend: Promise<void> | undefined;
    const failed = Promise.withResolvers<void>();
    try {
      for (;;) {
        // What the checker left over of the last frames comes first.
        let taken = checker.rest;
        if (!taken) {
          const next = await frames.next();
          if (next.done) break;
          taken = next.value;
        }
        if (failure) break;
        const events = checker.check(taken);
        if (events.count > 0) {
          if (call.events === 0) call.onMilestone?.('first event');
          call.events += events.count;
          call.bytes += events.bytes;
          this.traffic.received.add(events);
          call.notes.topic ??= events.topics[0].topic;
          call.pending++;
          lastAppend = writer.append(events).then(
            (appended) => {
              call.pending--;
              received += events.count;
              duplicates += appended.duplicates;
              this.traffic.duplicates += appended.duplicates;
              last = appended.last;
            },
            (error: AppendError) => {
              call.pending--;
              failure ??= error;
              failed.resolve();
              void frames.return?.(); // ends the stream now: the client's next event may be a long time coming
            },
          );
        }
        if (checker.problem || checker.isFull) break;
        const room = writer.room();
        if (room) await room;
        const { notes, peer, signal } = call;
        const turn = this.rates.take(notes.principal ?? peer, events.count, events.bytes, signal);
        if (turn) {
          call.pending++;
          await Promise.race([turn, failed.promise]);
          call.pending--;
        }
      }
    } catch (error) {
      streamError = error;
    } finally {
      void frames.return?.();
      call.onMilestone?.('last event');
      await lastAppend;
      call.onMilestone?.('stored');
      this.open--;
    }
    const count = { received: String(received) };
    if (failure instanceof TooManyTopicsError) this.hits.add('FEED_MAX_TOPICS');
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
  if (!(error instanceof FeedError)) return error;
  return error.with(received);
}
