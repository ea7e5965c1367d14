import { mkdirSync, statfsSync, statSync } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Database, open, type RootDatabase } from 'lmdb';
import type { Cursor, Position } from '../../wire/cursor.js';
import { cutAfter, type EventBatch } from '../../wire/event-batch.js';
import { AppendQueue, type Commit, type StoredRun } from '../append-queue.js';
import { Deduplication, eventAt } from '../deduplication.js';
import { type EpochStart, Epochs } from '../epochs.js';
import {
  AppendError,
  type CursorPlace,
  type Durability,
  EventRepository,
  type EventWriter,
} from '../event-repository.js';
import { logClock } from '../log-clock.js';
import { type DedupWindow, NO_DEDUP, RecentIds } from '../recent-ids.js';
import { joined, Tail } from '../tail.js';
import { lockDirectory } from './directory-lock.js';
import { idsRecord, positionKey, readIdsRecord } from './ids-record.js';
import { readRunKey, runKey, type RunKey, startKey } from './run-key.js';

export interface LmdbOptions {
  readonly directory: string;
  /** false: the operating system writes when it likes; a crash of the machine loses events. */
  readonly fsync: boolean;
  /** Which ids are remembered, to leave out events that come twice. */
  readonly dedup?: DedupWindow;
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

/** So many commits pass between looks for ids to forget. */
const FORGET_EVERY = 32;

const HEAD = 'head';

interface Head {
  position: Position;
  storedAt: number;
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
  private readonly runs: Database<Buffer, Buffer>;
  private readonly ids: Database<Buffer, Buffer>;
  private readonly meta: Database<unknown, string>;
  private readonly dedup: DedupWindow;
  private readonly recent: RecentIds;
  private commits = 0;
  private readonly epochs: Epochs;
  private readonly tail: Tail;
  private readonly queue: AppendQueue;
  private durableHead: Position;
  private listener: (topics: Iterable<string>) => void = () => {};

  private constructor(private readonly options: LmdbOptions) {
    super();
    this.durability = options.fsync ? 'fsync' : 'memory';
    this.location = resolve(options.directory);
    mkdirSync(this.location, { recursive: true });
    this.unlock = lockDirectory(this.location);
    try {
      this.root = open({
        path: join(this.location, 'log'),
        mapSize: MAP_BYTES,
        maxDbs: 8,
        noSync: !options.fsync,
        // With lmdb's default, a commit is readable before it is durable, promises of one are fulfilled
        // out of order, and a copied file may be read from a page that was never flushed.
        overlappingSync: false,
        // A batch a commit. With batches a turn of the event loop, a failed commit rejects promises
        // that nobody holds, and ends the process.
        eventTurnBatching: false,
      });
      this.runs = this.root.openDB({ name: 'runs', encoding: 'binary', keyEncoding: 'binary' });
      this.ids = this.root.openDB({ name: 'ids', encoding: 'binary', keyEncoding: 'binary' });
      this.meta = this.root.openDB({ name: 'meta', encoding: 'json' });
      this.checkFormat();
      const head = (this.meta.get(HEAD) as Head | undefined) ?? { position: 0, storedAt: 0 };
      this.epochs = this.readEpochs(head.position);
      this.durableHead = head.position;
      this.tail = new Tail(head.position, TAIL_BYTES);
      this.dedup = options.dedup ?? NO_DEDUP;
      this.recent = new RecentIds(this.dedup);
      const now = options.now ?? logClock(head.storedAt);
      this.recallIds(now());
      this.queue = new AppendQueue(
        { epochs: this.epochs, head: head.position, storedAt: head.storedAt, now },
        (commit) => this.commit(commit),
        (runs) => this.publish(runs),
        new Deduplication(this.recent, (topic, position) => eventAt(this, topic, position)),
      );
    } catch (error) {
      this.unlock();
      throw error;
    }
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
    if (after >= this.tail.horizon) return this.tail.read(topic, after, maxBytes);
    return this.readStored(topic, after, maxBytes);
  }

  override floor(): Promise<Position> {
    return Promise.resolve(0);
  }

  override positionBefore(topic: string, storedSince: number): Promise<Position | undefined> {
    const run = this.firstRun(topic, ({ storedAt }) => storedAt >= storedSince);
    return Promise.resolve(run && run.first - 1);
  }

  override positionBeforeLast(topic: string, count: number): Promise<Position> {
    const newest = this.lastRun(topic);
    if (!newest) return Promise.resolve(0);
    // The ordinal of the first event wanted; before the oldest held, the oldest is found.
    const wanted = newest.ordinal + newest.count - count;
    const run =
      this.firstRun(topic, (candidate) => candidate.ordinal + candidate.count > wanted) ?? newest;
    return Promise.resolve(run.first - 1 + Math.max(0, wanted - run.ordinal));
  }

  override onDurable(listener: (topics: Iterable<string>) => void): void {
    this.listener = listener;
  }

  override async close(): Promise<void> {
    await this.queue.close();
    try {
      await this.flush(); // before it is said to be flushed
      await this.saveState(true);
    } finally {
      await this.release();
    }
  }

  private async release(): Promise<void> {
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

  private async commit({ runs, ids }: Commit): Promise<void> {
    this.refuseIfFull(runs);
    const newest = runs[runs.length - 1];
    const head: Head = { position: newest.last, storedAt: newest.storedAt };
    const ordinals = new Map<string, number>();
    await this.write(() => {
      for (const run of runs) {
        const ordinal = ordinals.get(run.topic) ?? this.nextOrdinal(run.topic);
        ordinals.set(run.topic, ordinal + run.count);
        void this.runs.put(runKey(run, ordinal), run.bytes);
      }
      void this.meta.put(HEAD, head);
      if (this.dedup.ids > 0) {
        void this.ids.put(positionKey(runs[0].first), idsRecord(newest.storedAt, ids));
        this.forgetIds();
      }
    });
  }

  /** Remembers the ids of the newest events, by what commits have left for that: the log itself is not read. */
  private recallIds(now: number): void {
    const records: { first: Position; storedAt: number; ids: Uint32Array }[] = [];
    let left = this.dedup.ids;
    for (const { key, value } of this.ids.getRange({ reverse: true })) {
      const record = { first: key.readUIntBE(0, 6), ...readIdsRecord(value) };
      if (left <= 0 || record.storedAt < now - this.dedup.milliseconds) break;
      records.push(record);
      left -= record.ids.length / 2;
    }
    for (const { first, storedAt, ids } of records.toReversed()) {
      for (let i = 0; i < ids.length; i += 2) {
        if (ids[i] !== 0 || ids[i + 1] !== 0)
          this.recent.add(ids[i], ids[i + 1], first + i / 2, storedAt);
      }
    }
  }

  /** Removes, now and then and a few at a time, the records of ids that are no longer remembered. */
  private forgetIds(): void {
    if (++this.commits % FORGET_EVERY !== 0) return;
    const end = positionKey(Math.min(this.recent.oldest, this.durableHead));
    for (const key of this.ids.getKeys({ end, limit: 2 * FORGET_EVERY })) {
      // The record may go on into what is remembered.
      const { value } = this.ids.getEntry(key)!;
      const { ids } = readIdsRecord(value);
      if (key.readUIntBE(0, 6) + ids.length / 2 <= this.recent.oldest) void this.ids.remove(key);
    }
  }

  /** Every write goes through here: a failed one must not end the process. */
  private async write(puts: () => void): Promise<void> {
    try {
      await this.root.batch(puts);
    } catch (error) {
      throw await reasonOf(error as CommitFailure);
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

  /** Before the write, because a write that finds the disk full fails as EIO and may hurt the store. */
  private refuseIfFull(runs: readonly StoredRun[]): void {
    const { bavail, bsize } = statfsSync(this.location);
    const needed = runs.reduce((sum, run) => sum + run.bytes.length, 0) + RESERVE_BYTES;
    if (bavail * bsize < needed) {
      throw new AppendError(
        'storage-full',
        `the disk of ${this.location} has ${bavail * bsize} bytes free, and ${needed} are needed`,
      );
    }
  }

  private readStored(topic: string, after: Position, maxBytes: number): EventBatch | undefined {
    const parts: EventBatch[] = [];
    let bytes = 0;
    const holding = this.lastRun(topic, after);
    if (holding && holding.last > after) {
      const { first, last, count } = holding;
      parts.push(cutAfter({ first, last, count, bytes: this.bytesOf(topic, holding) }, after));
      bytes = parts[0].bytes.length;
    }
    const start = startKey(topic, after + 1);
    const end = startKey(topic, this.durableHead + 1);
    for (const { key, value } of this.runs.getRange({ start, end })) {
      if (parts.length > 0 && bytes + value.length > maxBytes) break;
      const { last, count } = readRunKey(key);
      parts.push({ bytes: value, count, last });
      bytes += value.length;
    }
    return parts.length === 0 ? undefined : joined(parts, bytes);
  }

  private bytesOf(topic: string, { first }: RunKey): Buffer {
    for (const { value } of this.runs.getRange({ start: startKey(topic, first), limit: 1 }))
      return value;
    throw new Error(`the run of ${topic} at ${first} is gone`);
  }

  /** The newest run of a topic that starts at or before a position. */
  private lastRun(topic: string, position: Position = this.durableHead): RunKey | undefined {
    const start = startKey(topic, position + 1);
    const end = startKey(topic, 0);
    for (const key of this.runs.getKeys({ start, end, reverse: true, limit: 1 }))
      return readRunKey(key);
    return undefined;
  }

  /** The oldest run of a topic for which something holds that, from some run on, holds for all. */
  private firstRun(topic: string, holds: (run: RunKey) => boolean): RunKey | undefined {
    const end = startKey(topic, this.durableHead + 1);
    let found: RunKey | undefined;
    let low = 0;
    let high = this.durableHead;
    while (low <= high) {
      const middle = Math.floor((low + high) / 2);
      const [key] = this.runs.getKeys({ start: startKey(topic, middle), end, limit: 1 });
      const run = key && readRunKey(key);
      if (run && !holds(run)) {
        low = run.last + 1;
      } else {
        if (run) found = run;
        high = middle - 1;
      }
    }
    return found;
  }

  private nextOrdinal(topic: string): number {
    const newest = this.lastRun(topic);
    return newest ? newest.ordinal + newest.count : 0;
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
