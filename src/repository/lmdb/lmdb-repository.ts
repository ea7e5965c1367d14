import { mkdirSync, statfsSync, statSync } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Database, open, type RootDatabase } from 'lmdb';
import type { Cursor, Position } from '../../wire/cursor.js';
import type { EventBatch } from '../../wire/event-batch.js';
import { AppendQueue, type Commit, type StoredRun } from '../append-queue.js';
import { Deduplication, eventAt } from '../deduplication.js';
import { type EpochStart, Epochs } from '../epochs.js';
import {
  AppendError,
  type CursorPlace,
  type Durability,
  EventRepository,
  EventsRemovedError,
  type EventWriter,
} from '../event-repository.js';
import { logClock } from '../log-clock.js';
import { type DedupWindow, NO_DEDUP, RecentIds } from '../recent-ids.js';
import { KEEP_ALL, RETENTION_INTERVAL, type RetentionLimits } from '../retention.js';
import { Tail } from '../tail.js';
import { lockDirectory } from './directory-lock.js';
import { IdTable } from './id-table.js';
import { type CommitRecord, RetentionTable } from './retention-table.js';
import { RunTable } from './run-table.js';

export interface LmdbOptions {
  readonly directory: string;
  /** false: the operating system writes when it likes; a crash of the machine loses events. */
  readonly fsync: boolean;
  /** Which ids are remembered, to leave out events that come twice. */
  readonly dedup?: DedupWindow;
  readonly retention?: RetentionLimits;
  /** The log's time, in milliseconds. */
  readonly now?: () => number;
}

const FORMAT = 1;
/** Address space, not memory or disk: the log grows to it without a remap, and beyond it with one. */
const MAP_BYTES = 64 * 2 ** 30;
/** Bytes of the newest events that are kept in memory for all watchers together. */
const TAIL_BYTES = 32 * 2 ** 20;
/** Free disk below which writes are refused: what LMDB's own pages, logs and others still need. */
const RESERVE_BYTES = 16 * 2 ** 20;

const HEAD = 'head';

interface Head {
  readonly position: Position;
  readonly storedAt: number;
  /** Of the events held. */
  readonly bytes: number;
}

/** What lmdb says of a database, in pages; the last page number is the whole file's. */
interface DatabaseStats {
  readonly pageSize: number;
  readonly lastPageNumber: number;
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
}

/** What lmdb throws when a commit fails; a second promise rejects as well, and unseen ends the process. */
interface CommitFailure extends Error {
  readonly commitError?: Promise<never>;
}

/**
 * The log in an LMDB file: a record per run of events, its key all that is known of the run, its value the
 * frames as they are sent.
 */
export class LmdbRepository extends EventRepository {
  override readonly durability: Durability;
  override readonly location: string;

  private readonly unlock: () => void;
  private readonly root: RootDatabase;
  private readonly databases: readonly Database[];
  private readonly meta: Database<unknown, string>;
  private readonly runs: RunTable;
  private readonly ids: IdTable;
  private readonly retention: RetentionTable;
  private readonly epochs: Epochs;
  private readonly tail: Tail;
  private readonly queue: AppendQueue;
  private readonly now: () => number;
  private readonly sweep: NodeJS.Timeout;
  private durable: Head;
  private listener: (topics: Iterable<string>) => void = () => {};

  private constructor(private readonly options: LmdbOptions) {
    super();
    const { fsync, dedup = NO_DEDUP, retention = KEEP_ALL } = options;
    this.durability = fsync ? 'fsync' : 'memory';
    this.location = resolve(options.directory);
    mkdirSync(this.location, { recursive: true });
    this.unlock = lockDirectory(this.location);
    try {
      this.root = open({
        path: join(this.location, 'log'),
        mapSize: MAP_BYTES,
        maxDbs: 8,
        noSync: !fsync,
        // With lmdb's default, a commit is readable before it is durable, promises of one are fulfilled
        // out of order, and a copied file may be read from a page that was never flushed.
        overlappingSync: false,
        // A batch a commit. With batches a turn of the event loop, a failed commit rejects promises
        // that nobody holds, and ends the process.
        eventTurnBatching: false,
      });
      const bytes = { encoding: 'binary', keyEncoding: 'binary' } as const;
      this.meta = this.root.openDB({ name: 'meta', encoding: 'json' });
      this.checkFormat();
      this.durable = (this.meta.get(HEAD) as Head | undefined) ?? {
        position: 0,
        storedAt: 0,
        bytes: 0,
      };
      const { position, storedAt } = this.durable;
      this.now = options.now ?? logClock(storedAt);
      this.epochs = this.readEpochs(position);
      this.tail = new Tail(position, TAIL_BYTES);
      const runTable = this.root.openDB<Buffer, Buffer>({ name: 'runs', ...bytes });
      const ids = this.root.openDB<Buffer, Buffer>({ name: 'ids', ...bytes });
      const order = this.root.openDB<CommitRecord, Buffer>({
        name: 'order',
        encoding: 'json',
        keyEncoding: 'binary',
      });
      const floors = this.root.openDB<Position, string>({ name: 'floors', encoding: 'json' });
      this.databases = [this.meta, runTable, ids, order, floors];
      this.runs = new RunTable(runTable);
      const recent = new RecentIds(dedup);
      this.ids = new IdTable(ids, dedup, recent);
      this.ids.recall(this.now());
      this.retention = new RetentionTable(order, floors, this.runs, retention);
      this.queue = new AppendQueue(
        { epochs: this.epochs, head: position, storedAt, now: this.now },
        (commit) => this.commit(commit),
        (runs) => this.publish(runs),
        new Deduplication(recent, (topic, at) =>
          // The tail may still have what retention has removed.
          at > this.retention.floor(topic) ? eventAt(this, topic, at) : undefined,
        ),
      );
    } catch (error) {
      this.unlock();
      throw error;
    }
    this.sweep = setInterval(() => {
      if (this.retention.isDue(this.now(), this.durable.bytes)) this.queue.commitAnyway();
    }, RETENTION_INTERVAL).unref();
  }

  static async open(options: LmdbOptions): Promise<LmdbRepository> {
    const repository = new LmdbRepository(options);
    try {
      await repository.saveState(false);
    } catch (error) {
      await repository.release();
      throw error;
    }
    return repository;
  }

  override get head(): Position {
    return this.durable.position;
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
    if (after >= this.tail.horizon) return this.tail.read(topic, after, maxBytes);
    if (after < this.retention.floor(topic)) throw new EventsRemovedError();
    return this.runs.read(topic, after, this.head, maxBytes);
  }

  override floor(topic: string): Promise<Position> {
    return Promise.resolve(this.retention.floor(topic));
  }

  override positionBefore(topic: string, storedSince: number): Promise<Position | undefined> {
    const run = this.runs.first(topic, this.head, ({ storedAt }) => storedAt >= storedSince);
    return Promise.resolve(run && run.first - 1);
  }

  override positionBeforeLast(topic: string, count: number): Promise<Position> {
    const newest = this.runs.newest(topic, this.head);
    if (!newest) return this.floor(topic);
    // The ordinal of the first event wanted; before the oldest held, the oldest is found.
    const wanted = newest.ordinal + newest.count - count;
    const run =
      this.runs.first(topic, this.head, (held) => held.ordinal + held.count > wanted) ?? newest;
    return Promise.resolve(run.first - 1 + Math.max(0, wanted - run.ordinal));
  }

  override onDurable(listener: (topics: Iterable<string>) => void): void {
    this.listener = listener;
  }

  override async close(): Promise<void> {
    clearInterval(this.sweep);
    await this.queue.close();
    try {
      await this.flush(); // before it is said to be flushed
      await this.saveState(true);
    } finally {
      await this.release();
    }
  }

  private async release(): Promise<void> {
    clearInterval(this.sweep);
    await this.root.close();
    this.unlock();
  }

  /** What LMDB leaves to the operating system without fsync. */
  private async flush(): Promise<void> {
    if (this.options.fsync) return;
    const file = await openFile(this.dataFile, 'r+');
    try {
      await file.datasync();
    } finally {
      await file.close();
    }
  }

  private get dataFile(): string {
    return join(this.location, 'log', 'data.mdb');
  }

  private async commit(commit: Commit): Promise<void> {
    const { runs } = commit;
    const stored = runs.reduce((sum, run) => sum + run.bytes.length, 0);
    this.refuseIfFull(stored);
    const newest = runs.at(-1);
    let head = this.durable;
    await this.write(() => {
      const bytes = head.bytes + stored;
      const removed = this.retention.keepWithin(runs, this.now(), bytes);
      this.runs.put(runs);
      if (runs.length > 0) this.ids.put(commit);
      head = {
        position: newest?.last ?? head.position,
        storedAt: newest?.storedAt ?? head.storedAt,
        bytes: bytes - removed,
      };
      void this.meta.put(HEAD, head);
    });
    this.durable = { ...head, position: this.durable.position };
  }

  private publish(runs: readonly StoredRun[]): void {
    const topics = new Set<string>();
    for (const run of runs) {
      this.tail.add(run);
      topics.add(run.topic);
    }
    this.durable = { ...this.durable, position: runs[runs.length - 1].last };
    this.listener(topics);
  }

  /** Every write goes through here: a failed one must not end the process. */
  private async write(puts: () => void): Promise<void> {
    try {
      await this.root.batch(puts);
    } catch (error) {
      throw await reasonOf(error as CommitFailure);
    }
  }

  /** Before the write, because a write that finds the disk full fails as EIO and may hurt the store. */
  private refuseIfFull(stored: number): void {
    if (stored === 0) return; // retention makes room
    const { bavail, bsize } = statfsSync(this.location);
    const needed = stored + RESERVE_BYTES;
    if (bavail * bsize >= needed) return;
    // Removed events leave room within the file, which never shrinks. Half of it, because it is in pieces.
    const room = bavail * bsize + this.freeWithin() / 2;
    if (room >= needed) return;
    throw new AppendError(
      'storage-full',
      `the disk of ${this.location} has room for ${Math.floor(room)} bytes, and ${needed} are needed: ` +
        'make room, or let FEED_RETENTION_MAX_BYTES or FEED_RETENTION_MAX_AGE keep less',
    );
  }

  /** Bytes of the file that hold nothing. */
  private freeWithin(): number {
    const stats = this.databases.map((database) => database.getStats() as DatabaseStats);
    const used = stats.reduce(
      (sum, { treeBranchPageCount, treeLeafPageCount, overflowPages }) =>
        sum + treeBranchPageCount + treeLeafPageCount + overflowPages,
      0,
    );
    return stats[0].pageSize * Math.max(0, stats[0].lastPageNumber + 1 - used);
  }

  private checkFormat(): void {
    const format = this.meta.get('format') ?? FORMAT;
    if (format !== FORMAT) {
      throw new Error(
        `the log in ${this.location} has format ${JSON.stringify(format)}; this version reads ${FORMAT}`,
      );
    }
  }

  private readEpochs(head: Position): Epochs {
    const starts = this.meta.get('epochs') as EpochStart[] | undefined;
    if (!starts) return Epochs.newLog();
    const epochs = new Epochs(starts);
    // A copy may lack what the original has given out since.
    if (this.meta.get('file') !== this.fileIdentity()) return epochs.begun(head);
    // What the operating system had not written is lost, and its positions will be given out again.
    if (this.meta.get('flushed') === false) return epochs.begun(head);
    return epochs;
  }

  private async saveState(closing: boolean): Promise<void> {
    await this.write(() => {
      void this.meta.put('format', FORMAT);
      void this.meta.put('epochs', this.epochs.starts);
      void this.meta.put('file', this.fileIdentity());
      void this.meta.put('flushed', closing || this.options.fsync);
    });
    await this.flush();
  }

  /** Tells a log's file from a copy of it: same name and content, but made at another time or place. */
  private fileIdentity(): string {
    const { ino, birthtimeNs } = statSync(this.dataFile, { bigint: true });
    return `${ino}:${birthtimeNs}`;
  }
}

async function reasonOf(error: CommitFailure): Promise<Error> {
  try {
    await error.commitError;
  } catch (reason) {
    return reason as Error;
  }
  return error;
}
