import type { Cursor, Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import { AppendQueue, type Commit, type StoredRun } from './append-queue.js';
import { Deduplication, StoredIds } from './deduplication.js';
import type { Epochs } from './epochs.js';
import { type CursorPlace, EventRepository, type EventWriter } from './event-repository.js';
import type { LogClock } from './log-clock.js';
import type { RecentIds } from './recent-ids.js';
import { RETENTION_INTERVAL } from './retention.js';
import { Tail } from './tail.js';

export interface EmbeddedStart {
  readonly epochs: Epochs;
  readonly head: Position;
  readonly storedAt: number;
  readonly clock: LogClock;
  readonly recent: RecentIds;
  /** Bytes of the newest events that are kept in memory. */
  readonly tailBytes: number;
}

/** A log within this process, its only writer: the queue of appends, the tail, and an engine's commits. */
export abstract class EmbeddedRepository extends EventRepository {
  protected readonly clock: LogClock;
  protected readonly tail: Tail;
  protected readonly queue: AppendQueue;

  private readonly epochs: Epochs;
  private readonly sweep: NodeJS.Timeout;
  private durableHead: Position;
  private headAtSweep: Position;
  private removing = false;
  private closing: Promise<void> | undefined;
  private listener: (topics: Iterable<string>) => void = () => {};

  protected constructor({ epochs, head, storedAt, clock, recent, tailBytes }: EmbeddedStart) {
    super();
    this.epochs = epochs;
    this.headAtSweep = this.durableHead = head;
    this.clock = clock;
    this.tail = new Tail(head, tailBytes);
    const storedIds = new StoredIds(this);
    this.queue = new AppendQueue(
      { epochs, head, storedAt, now: clock.now },
      (commit) => this.commit(commit),
      (runs) => this.publish(runs),
      new Deduplication(recent, (topic, position) =>
        position > this.floorOf(topic)
          ? storedIds.at(topic, position)
          : this.removedIdAt(topic, position),
      ),
    );
    this.sweep = setInterval(() => void this.removeDue(), RETENTION_INTERVAL).unref();
  }

  /** Makes runs durable, all or none, and removes what is over the limits: also where there are no runs. */
  protected abstract commit(commit: Commit): Promise<void>;

  /**
   * Whether something is to be removed though nothing is stored.
   *
   * @param isIdle nothing has come in for a while
   */
  protected abstract isRetentionDue(isIdle: boolean): boolean;

  /** Called once, after the last commit: the engine flushes and releases its files. */
  protected closeStore(): Promise<void> {
    return Promise.resolve();
  }

  protected abstract floorOf(topic: string): Position;

  /** positionBefore() a time of the log's. */
  protected abstract positionBeforeTime(topic: string, storedSince: number): Position | undefined;

  /** The id of an event that was removed, for as long as it is remembered. */
  protected abstract removedIdAt(topic: string, position: Position): Buffer | undefined;

  abstract override read(topic: string, after: Position, maxBytes: number): EventBatch | undefined;

  override get head(): Position {
    return this.durableHead;
  }

  override cursorAt(position: Position): Cursor {
    return this.epochs.cursorAt(position);
  }

  override locate(cursor: Cursor): CursorPlace {
    return this.epochs.locate(cursor, this.head);
  }

  override positionBefore(topic: string, since: number): Promise<Position | undefined> {
    return Promise.resolve(this.positionBeforeTime(topic, this.clock.since(since)));
  }

  override openWriter(): EventWriter {
    return this.queue.openWriter();
  }

  override floor(topic: string): Promise<Position> {
    return Promise.resolve(this.floorOf(topic));
  }

  override onDurable(listener: (topics: Iterable<string>) => void): void {
    this.listener = listener;
  }

  override close(): Promise<void> {
    this.closing ??= this.end();
    return this.closing;
  }

  private async end(): Promise<void> {
    clearInterval(this.sweep);
    await this.queue.close();
    await this.closeStore();
  }

  /** Commits until nothing is over a limit: what comes in meanwhile shares them. */
  private async removeDue(): Promise<void> {
    if (this.removing) return;
    this.removing = true;
    const isIdle = this.headAtSweep === this.head;
    this.headAtSweep = this.head;
    try {
      while (this.isRetentionDue(isIdle)) await this.queue.commitAnyway();
    } catch {
      // Uploads are told why commits fail; the next sweep tries again.
    } finally {
      this.removing = false;
    }
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
