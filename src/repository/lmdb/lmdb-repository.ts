import { statfsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Position } from '../../wire/cursor.js';
import type { EventBatch } from '../../wire/event-batch.js';
import { bytesOf, type Commit } from '../append-queue.js';
import { EmbeddedRepository, type EmbeddedStart } from '../embedded-repository.js';
import { AppendError, type Durability, EventsRemovedError } from '../event-repository.js';
import { type LogClock, logClock } from '../log-clock.js';
import { type DedupWindow, NO_DEDUP, RecentIds } from '../recent-ids.js';
import { KEEP_ALL, overQuota, type RetentionLimits } from '../retention.js';
import { refuseDamaged } from './damage.js';
import { takeDirectory } from './directory-lock.js';
import { makeNewLog } from './new-log.js';
import { openStore, type Store } from './store.js';

export interface LmdbOptions {
  readonly directory: string;
  /** false: the operating system writes when it likes; a crash of the machine loses events. */
  readonly fsync: boolean;
  /** Which ids are remembered, to leave out events that come twice. */
  readonly dedup?: DedupWindow;
  readonly retention?: RetentionLimits;
  readonly clock?: LogClock;
}

/** The log's own directory, within the data directory. */
const LOG = 'log';
/** Bytes of the newest events that are kept in memory for all watchers together. */
const TAIL_BYTES = 32 * 2 ** 20;
/** Free disk below which writes are refused: what LMDB's own pages, logs and others still need. */
const RESERVE_BYTES = 16 * 2 ** 20;
/** And below which nothing is removed either: what one removal writes, the ids of what it removes above all. */
const REMOVAL_BYTES = 8 * 2 ** 20;
const NOTHING: Commit = { runs: [], ids: [] };

/**
 * The log in an LMDB file: a record per run of events, its key all that is known of the run, its value the
 * frames as they are sent.
 */
export class LmdbRepository extends EmbeddedRepository {
  override readonly durability: Durability;

  private constructor(
    override readonly location: string,
    options: LmdbOptions,
    private readonly store: Store,
    start: EmbeddedStart,
    private heldBytes: number,
    private readonly unlock: () => void,
  ) {
    super(start);
    this.durability = options.fsync ? 'fsync' : 'memory';
  }

  static async open(options: LmdbOptions): Promise<LmdbRepository> {
    const location = resolve(options.directory);
    const unlock = takeDirectory(location);
    let store: Store | undefined;
    try {
      refuseDamaged(join(location, LOG, 'data.mdb'));
      const { dedup = NO_DEDUP, retention = KEEP_ALL } = options;
      const recent = new RecentIds(dedup);
      const open = (path: string): Store =>
        openStore(path, options.fsync, dedup, recent, retention);
      await makeNewLog(location, LOG, open);
      store = open(join(location, LOG));
      const head = store.head();
      const { position, storedAt, bytes } = head;
      const clock = options.clock ?? logClock(head);
      store.ids.recall(clock.now());
      const epochs = await store.beginEpoch(position);
      const start = { epochs, head: position, storedAt, clock, recent, tailBytes: TAIL_BYTES };
      return new LmdbRepository(location, options, store, start, bytes, unlock);
    } catch (error) {
      await store?.close();
      unlock();
      throw error;
    }
  }

  override read(topic: string, after: Position, maxBytes: number): EventBatch | undefined {
    if (after >= this.tail.horizon) return this.tail.read(topic, after, maxBytes);
    if (after < this.floorOf(topic)) throw new EventsRemovedError();
    return this.store.runs.read(topic, after, this.head, maxBytes);
  }

  protected override positionBeforeTime(topic: string, storedSince: number): Position | undefined {
    const run = this.store.runs.first(topic, this.head, ({ storedAt }) => storedAt >= storedSince);
    return run && run.first - 1;
  }

  override positionBeforeLast(topic: string, count: number): Promise<Position> {
    const { runs } = this.store;
    const newest = runs.newest(topic, this.head);
    if (!newest) return this.floor(topic);
    // The ordinal of the first event wanted; before the oldest held, the oldest is found.
    const wanted = newest.ordinal + newest.count - count;
    const run =
      runs.first(topic, this.head, (held) => held.ordinal + held.count > wanted) ?? newest;
    return Promise.resolve(run.first - 1 + Math.max(0, wanted - run.ordinal));
  }

  override async close(): Promise<void> {
    await super.close();
    await this.store.close();
    this.unlock();
  }

  protected override floorOf(topic: string): Position {
    return this.store.retention.floor(topic);
  }

  protected override removedIdAt(topic: string, position: Position): Buffer | undefined {
    return this.store.removedIds.at(topic, position);
  }

  protected override isRetentionDue(isIdle: boolean): boolean {
    return this.store.retention.isDue(this.clock.now(), this.heldBytes, isIdle);
  }

  protected override async commit(commit: Commit): Promise<void> {
    const stuck = this.fullness(REMOVAL_BYTES);
    if (stuck) throw stuck;
    while (this.store.retention.isBehind) await this.write(NOTHING, 0);
    const stored = bytesOf(commit.runs);
    let full = this.refusal(stored);
    // What is over a limit goes all the same, and may make room enough.
    if (full && this.isRetentionDue(true)) {
      await this.write(NOTHING, 0);
      full = this.refusal(stored);
    }
    if (full) throw full;
    await this.write(commit, stored);
  }

  private refusal(stored: number): AppendError | undefined {
    if (stored === 0) return undefined;
    return (
      overQuota(this.store.retention.limits, this.heldBytes, stored) ??
      this.fullness(stored + RESERVE_BYTES)
    );
  }

  private async write(commit: Commit, stored: number): Promise<void> {
    const { retention } = this.store;
    let bytes = this.heldBytes + stored;
    try {
      await this.store.write(() => {
        bytes -= retention.keepWithin(commit.runs, this.clock.now(), bytes);
        this.store.put(commit, bytes, this.clock.lag());
      });
    } catch (error) {
      retention.forgetChoice();
      throw error;
    }
    this.heldBytes = bytes;
  }

  /** Before the write, because one that finds the disk full fails as EIO, and may hurt the store or end the process. */
  private fullness(needed: number): AppendError | undefined {
    const { bavail, bsize } = statfsSync(this.location);
    if (bavail * bsize >= needed) return undefined;
    // Removed events leave room within the file, which never shrinks. Half of it, because it is in pieces.
    const room = Math.floor(bavail * bsize + this.store.freeBytes() / 2);
    if (room >= needed) return undefined;
    return new AppendError(
      'storage-full',
      `the disk of ${this.location} has room for ${room} bytes, and ${needed} are needed: ` +
        'make room, or let FEED_RETENTION_MAX_BYTES or FEED_RETENTION_MAX_AGE keep less',
    );
  }
}
