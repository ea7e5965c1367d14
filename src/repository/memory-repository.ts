import type { Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import { bytesOf, type Commit, type StoredRun } from './append-queue.js';
import { framedId, framedIds } from './deduplication.js';
import { EmbeddedRepository } from './embedded-repository.js';
import { Epochs } from './epochs.js';
import { type Durability, EventsRemovedError } from './event-repository.js';
import { type LogClock, logClock } from './log-clock.js';
import { type DedupWindow, NO_DEDUP, RecentIds } from './recent-ids.js';
import { KEEP_ALL, overQuota, type RetentionLimits } from './retention.js';

export interface MemoryOptions {
  readonly dedup?: DedupWindow;
  readonly retention?: RetentionLimits;
  readonly clock?: LogClock;
}

/** A log in memory, for tests and trials: gone, and a new epoch, with every restart. */
export class MemoryRepository extends EmbeddedRepository {
  override readonly durability: Durability = 'memory';
  override readonly location = 'memory, lost at the end of the process';

  private readonly retention: RetentionLimits;
  /** Of each topic that lost events, the position of the newest removed. */
  private readonly floors = new Map<string, Position>();
  private readonly recent: RecentIds;
  /** Runs that were removed, with the ids of their events for bytes, while those are remembered. */
  private removed: StoredRun[] = [];

  constructor({
    dedup = NO_DEDUP,
    retention = KEEP_ALL,
    clock = logClock({ storedAt: 0 }),
  }: MemoryOptions = {}) {
    const recent = new RecentIds(dedup);
    super({
      epochs: new Epochs([]).begun(0),
      head: 0,
      storedAt: 0,
      clock,
      recent,
      tailBytes: Infinity,
    });
    this.retention = retention;
    this.recent = recent;
  }

  override read(topic: string, after: Position, maxBytes: number): EventBatch | undefined {
    if (after < this.floorOf(topic)) throw new EventsRemovedError();
    return this.tail.read(topic, after, maxBytes);
  }

  protected override positionBeforeTime(topic: string, storedSince: number): Position | undefined {
    const run = this.tail.runs(topic).find(({ storedAt }) => storedAt >= storedSince);
    return run && run.first - 1;
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

  protected override floorOf(topic: string): Position {
    return this.floors.get(topic) ?? 0;
  }

  protected override removedIdAt(topic: string, position: Position): Buffer | undefined {
    const run = this.removed.find(
      (one) => one.topic === topic && one.first <= position && position <= one.last,
    );
    return run && framedId(run.bytes, position - run.first);
  }

  protected override isRetentionDue(): boolean {
    const { oldest } = this.tail;
    if (!oldest) return false;
    const { maxAge, maxBytes } = this.retention;
    const isOld = maxAge > 0 && oldest.storedAt < this.clock.now() - maxAge;
    return isOld || (maxBytes > 0 && this.tail.bytes > maxBytes);
  }

  /** What is stored is added when it is published: what is removed here makes room for it. */
  protected override commit({ runs }: Commit): Promise<void> {
    while (this.isRetentionDue()) this.remove(this.tail.oldest!);
    const { topicMaxBytes } = this.retention;
    for (const topic of topicMaxBytes > 0 ? new Set(runs.map((run) => run.topic)) : []) {
      const held = this.tail.runs(topic);
      let bytes = bytesOf(held);
      // The newest run stays, however large.
      for (const run of held.slice(0, -1)) {
        if (bytes <= topicMaxBytes) break;
        bytes -= run.bytes.length;
        this.remove(run);
      }
    }
    const isRemembered = ({ last, storedAt }: StoredRun): boolean =>
      this.recent.isRemembered(last, storedAt, this.clock.now());
    const [oldest] = this.removed;
    if (oldest && !isRemembered(oldest)) this.removed = this.removed.filter(isRemembered);
    const full = overQuota(this.retention, this.tail.bytes, bytesOf(runs));
    return full ? Promise.reject(full) : Promise.resolve();
  }

  private remove(run: StoredRun): void {
    this.removed.push({ ...run, bytes: Buffer.from(framedIds(run.bytes)) });
    this.tail.remove(run);
    this.floors.set(run.topic, run.last);
  }
}
