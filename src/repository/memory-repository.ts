import type { Cursor, Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import { AppendQueue, type StoredRun } from './append-queue.js';
import { Deduplication, eventAt } from './deduplication.js';
import { Epochs } from './epochs.js';
import {
  type CursorPlace,
  type Durability,
  EventRepository,
  EventsRemovedError,
  type EventWriter,
} from './event-repository.js';
import { logClock } from './log-clock.js';
import { type DedupWindow, NO_DEDUP, RecentIds } from './recent-ids.js';
import { KEEP_ALL, RETENTION_INTERVAL, type RetentionLimits } from './retention.js';
import { Tail } from './tail.js';

export interface MemoryOptions {
  readonly dedup?: DedupWindow;
  readonly retention?: RetentionLimits;
  /** The log's time, in milliseconds. */
  readonly now?: () => number;
}

/** A log in memory, for tests and trials: gone, and a new epoch, with every restart. */
export class MemoryRepository extends EventRepository {
  override readonly durability: Durability = 'memory';
  override readonly location = 'memory, lost at the end of the process';

  private readonly retention: RetentionLimits;
  private readonly now: () => number;
  private readonly sweep: NodeJS.Timeout;
  private readonly epochs = Epochs.newLog();
  private readonly tail = new Tail(0, Infinity);
  private readonly queue: AppendQueue;
  private durableHead: Position = 0;
  /** Of each topic that lost events, the position of the newest removed. */
  private readonly floors = new Map<string, Position>();
  private listener: (topics: Iterable<string>) => void = () => {};

  constructor({ dedup = NO_DEDUP, retention = KEEP_ALL, now = logClock(0) }: MemoryOptions = {}) {
    super();
    this.retention = retention;
    this.now = now;
    this.sweep = setInterval(() => this.keepWithinLimits([]), RETENTION_INTERVAL).unref();
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
    if (after < (this.floors.get(topic) ?? 0)) throw new EventsRemovedError();
    return this.tail.read(topic, after, maxBytes);
  }

  override floor(topic: string): Promise<Position> {
    return Promise.resolve(this.floors.get(topic) ?? 0);
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
    return this.floor(topic);
  }

  override onDurable(listener: (topics: Iterable<string>) => void): void {
    this.listener = listener;
  }

  override close(): Promise<void> {
    clearInterval(this.sweep);
    return this.queue.close();
  }

  private publish(runs: readonly StoredRun[]): void {
    const topics = new Set<string>();
    for (const run of runs) {
      this.tail.add(run);
      topics.add(run.topic);
    }
    this.durableHead = runs[runs.length - 1].last;
    this.keepWithinLimits(topics);
    this.listener(topics);
  }

  private keepWithinLimits(topics: Iterable<string>): void {
    const { maxAge, maxBytes, topicMaxBytes } = this.retention;
    const oldestKept = maxAge > 0 ? this.now() - maxAge : 0;
    for (let run = this.tail.oldest; run; run = this.tail.oldest) {
      if (run.storedAt >= oldestKept && (maxBytes === 0 || this.tail.bytes <= maxBytes)) break;
      this.tail.remove(run);
      this.floors.set(run.topic, run.last);
    }
    if (topicMaxBytes === 0) return;
    for (const topic of topics) {
      const runs = this.tail.runs(topic);
      let bytes = runs.reduce((sum, run) => sum + run.bytes.length, 0);
      // The newest run stays, however large.
      for (const run of runs.slice(0, -1)) {
        if (bytes <= topicMaxBytes) break;
        bytes -= run.bytes.length;
        this.tail.remove(run);
        this.floors.set(topic, run.last);
      }
    }
  }
}
