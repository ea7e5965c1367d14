import { Injectable } from '@nestjs/common';
import { Broker } from '../broker/broker.js';
import type { WatchRequest } from '../gen/feed/v1/feed.js';
import { EventRepository, EventsRemovedError } from '../repository/event-repository.js';
import type { Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import { heartbeatEvent } from '../wire/heartbeat.js';
import { boundsOf, expired, type WatchStart, watchStart } from './watch-start.js';

/** Bytes of events that a watch sends at a time: all the memory it takes, however slow its reader. */
const BATCH_BYTES = 32 * 1024;

export interface OpenWatch {
  readonly start: WatchStart;
  readonly batches: AsyncGenerator<EventBatch, void, void>;
}

/** Follows topics: read the log, send, and when there is no more, wait for the bell. */
@Injectable()
export class Watches {
  /** Watches being read. */
  open = 0;

  constructor(
    private readonly repository: EventRepository,
    private readonly broker: Broker,
  ) {}

  /**
   * The batches never end by themselves: they throw what the signal was aborted with.
   *
   * @throws FeedError if the request can't be served
   */
  async watch(request: WatchRequest, signal: AbortSignal): Promise<OpenWatch> {
    const start = await watchStart(this.repository, request);
    return { start, batches: this.follow(request.topic, start, signal) };
  }

  private async *follow(
    topic: string,
    { after, heartbeat }: WatchStart,
    signal: AbortSignal,
  ): AsyncGenerator<EventBatch, void, void> {
    this.open++;
    const bell = this.broker.subscribe(topic);
    const lookUp = (): void => bell.ring();
    signal.addEventListener('abort', lookUp);
    try {
      let position: Position = after;
      let sentAt = performance.now();
      for (;;) {
        bell.clear();
        signal.throwIfAborted();
        // Before the read: it is past no event of this topic that the read will not have found.
        const head = this.repository.head;
        while (position < this.repository.head) {
          const found = this.repository.read(topic, position, BATCH_BYTES);
          const batch = found instanceof Promise ? await found : found;
          if (!batch) break;
          position = batch.last;
          yield batch;
          sentAt = performance.now();
          signal.throwIfAborted();
        }
        if (head > position) position = head;
        if (heartbeat > 0 && performance.now() - sentAt >= heartbeat) {
          yield heartbeatEvent(topic, this.repository.cursorAt(position));
          sentAt = performance.now();
        }
        // A ring may bring nothing: the heartbeat is counted from what was sent.
        await bell.wait(heartbeat && Math.max(1, sentAt + heartbeat - performance.now()));
      }
    } catch (error) {
      // Retention has overtaken a reader that is slower than it.
      if (error instanceof EventsRemovedError)
        throw expired(await boundsOf(this.repository, topic));
      throw error;
    } finally {
      signal.removeEventListener('abort', lookUp);
      bell.silence();
      this.open--;
    }
  }
}
