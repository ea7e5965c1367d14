import type { Cursor, Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import { AppendQueue, type StoredRun } from './append-queue.js';
import { Deduplication, eventAt } from './deduplication.js';
import { Epochs } from './epochs.js';
import {
  type CursorPlace,
  type Durability,
  EventRepository,
  type EventWriter,
} from './event-repository.js';
import { logClock } from './log-clock.js';
import { type DedupWindow, NO_DEDUP, RecentIds } from './recent-ids.js';
import { Tail } from './tail.js';

/** A log in memory, for tests and trials: gone, and a new epoch, with every restart. */
export class MemoryRepository extends EventRepository {
  override readonly durability: Durability = 'memory';
  override readonly location = 'memory, lost at the end of the process';

  private readonly epochs = Epochs.newLog();
  private readonly tail = new Tail(0, Infinity);
  private readonly queue: AppendQueue;
  private durableHead: Position = 0;
  private listener: (topics: Iterable<string>) => void = () => {};

  constructor(dedup: DedupWindow = NO_DEDUP, now = logClock(0)) {
    super();
    this.queue = new AppendQueue(
      { epochs: this.epochs, head: 0, storedAt: 0, now },
      () => Promise.resolve(),
      (runs) => this.publish(runs),
      new Deduplication(new RecentIds(dedup), (topic, position) => eventAt(this, topic, position)),
    );
  }

  override get head(): Position {
    return this.durableHead;
  }

  override cursorAt(position: Position): Cursor {
    return this.epochs.cursorAt(position);
  }

  override locate(cursor: Cursor): CursorPlace {
    return this.epochs.locate(cursor, this.head);
  }

  override openWriter(): EventWriter {
    return this.queue.openWriter();
  }

  override read(topic: string, after: Position, maxBytes: number): EventBatch | undefined {
    return this.tail.read(topic, after, maxBytes);
  }

  override floor(): Promise<Position> {
    return Promise.resolve(0);
  }

  override positionBefore(topic: string, storedSince: number): Promise<Position | undefined> {
    const run = this.tail.runs(topic).find(({ storedAt }) => storedAt >= storedSince);
    return Promise.resolve(run && run.first - 1);
  }

  override positionBeforeLast(topic: string, count: number): Promise<Position> {
    const runs = this.tail.runs(topic);
    let left = count;
    for (let i = runs.length - 1; i >= 0; i--) {
      if (runs[i].count >= left) return Promise.resolve(runs[i].last - left);
      left -= runs[i].count;
    }
    return Promise.resolve(0);
  }

  override onDurable(listener: (topics: Iterable<string>) => void): void {
    this.listener = listener;
  }

  override close(): Promise<void> {
    return this.queue.close();
  }

  private publish(runs: readonly StoredRun[]): void {
    const topics = new Set<string>();
    for (const run of runs) {
      this.tail.add(run);
      topics.add(run.topic);
    }
    this.durableHead = runs[runs.length - 1].last;
    this.listener(topics);
  }
}
