import { type Database, open, type RootDatabase } from 'lmdb';
import { type Epoch, MAX_POSITION, type Position } from '../../wire/cursor.js';
import type { CommitRecord, EngineCommit, Removal } from '../engine.js';
import { type EpochStart, Epochs } from '../epochs.js';
import type { LastStored } from '../log-clock.js';
import { type DedupHorizon, isRemembered } from '../recent-ids.js';
import { bytesOf } from '../stored-run.js';
import { CommitTable } from './commit-table.js';
import { IdTable } from './id-table.js';
import { PositionSum, type PositionTable } from './position-sum.js';
import { RemovedIds } from './removed-ids.js';
import { RunTable } from './run-table.js';

const FORMAT = 2;
/** A log of this format has no pieces (run-table.ts). Opening it makes it one of format 2: new runs get pieces. */
const FORMAT_OF_WHOLE_RUNS = 1;
/** Address space, which costs neither memory nor disk. If the log grows beyond it, LMDB maps the file again. */
const MAP_BYTES = 64 * 2 ** 30;

const FLOORS_AT_ONCE = 1_000;

/** MDB_BAD_TXN of lmdb.h. */
const BAD_TRANSACTION = -30782;

/** The log after its last commit. A log of an earlier version has no `wall`, no `lag`, no `topics` and no `sum`. */
interface Head extends LastStored {
  readonly position: Position;
  /** The size of all events held. */
  readonly bytes: number;
  /** How many topics hold something. */
  readonly topics?: number;
  /**
   * The PositionSum of positions(). It counts in its epoch alone: an earlier version, which begins another one, changes the tables and
   * may leave it as it was.
   */
  readonly sum?: { readonly epoch: Epoch; readonly value: number };
}

/** The size of the events that a log holds, the number of its topics, and the PositionSum of its tables. */
export interface Held {
  readonly bytes: number;
  readonly topics: number;
  readonly sum: number;
}

/** lmdb's statistics of a database, in pages. The last page number is that of the whole file. */
interface DatabaseStats {
  readonly pageSize: number;
  readonly lastPageNumber: number;
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
  readonly entryCount: number;
}

/** lmdb's error of a failed commit. The promise in it rejects, too: if nobody handles that, the process ends. */
interface CommitFailure extends Error {
  /** LMDB's, or that of the system. */
  readonly code?: number;
  readonly commitError?: Promise<never>;
}

/** The LMDB file and the tables in it. */
export class Store {
  readonly runs: RunTable;
  readonly commits: CommitTable;
  readonly ids: IdTable;
  readonly removedIds: RemovedIds;

  private readonly root: RootDatabase;
  private readonly meta: Database<unknown, string>;
  /** The position of the newest removed event, for each topic that lost any. */
  private readonly floors: Database<Position, string>;
  private readonly databases: readonly Database[];
  /** The tables of which PositionSum is. */
  private readonly positionTables: readonly Database[];
  /** That of this opening, once it began. */
  private epoch: Epoch | undefined;

  constructor(path: string, fsync: boolean) {
    const root = open({
      path,
      mapSize: MAP_BYTES,
      maxDbs: 8,
      noSync: !fsync,
      // With lmdb's default, a commit is readable before it is durable, its promises are fulfilled out of order, and
      // a copy of the file may lead to pages that were never flushed.
      overlappingSync: false,
      // Each commit is one batch. With lmdb's default, a batch for each turn of the event loop, a failed commit
      // rejects promises that nobody handles, and ends the process.
      eventTurnBatching: false,
    });
    const bytes = { encoding: 'binary', keyEncoding: 'binary' } as const;
    const meta = root.openDB<unknown, string>({ name: 'meta', encoding: 'json' });
    const runs = root.openDB<Buffer, Buffer>({ name: 'runs', ...bytes });
    const pieces = root.openDB<Buffer, Buffer>({ name: 'pieces', ...bytes });
    const ids = root.openDB<Buffer, Buffer>({ name: 'ids', ...bytes });
    const order = root.openDB<Omit<CommitRecord, 'first'>, Buffer>({
      name: 'order',
      encoding: 'json',
      keyEncoding: 'binary',
    });
    const floors = root.openDB<Position, string>({ name: 'floors', encoding: 'json' });
    const removed = root.openDB<Buffer, Buffer>({ name: 'removed-ids', ...bytes });
    this.root = root;
    this.meta = meta;
    this.floors = floors;
    this.positionTables = [ids, order, floors, removed];
    this.databases = [meta, runs, pieces, ...this.positionTables];
    this.runs = new RunTable(runs, pieces);
    this.commits = new CommitTable(order);
    this.ids = new IdTable(ids);
    this.removedIds = new RemovedIds(removed);
  }

  head(): Head {
    return (this.meta.get('head') as Head | undefined) ?? { position: 0, storedAt: 0, bytes: 0 };
  }

  /**
   * Begins the epoch of this opening, and stores it. Each opening needs one: the log may be a copy, or a crash without
   * fsync may have lost its end, and then positions after `head` were given out before.
   *
   * @param sum the PositionSum of positions()
   */
  async beginEpoch(sum: number): Promise<Epochs> {
    const head = this.head();
    const epochs = this.epochs().begun(head.position);
    await this.write(() => {
      void this.meta.put('format', FORMAT);
      void this.meta.put('epochs', epochs.starts);
      void this.meta.put('head', { ...head, sum: { epoch: epochs.current, value: sum } });
    });
    this.epoch = epochs.current;
    return epochs;
  }

  /** Returns the PositionSum that the last commit stored; undefined if it was one of an earlier version. */
  storedSum(): number | undefined {
    // Nothing was ever stored in a log without a head.
    if (!this.meta.doesExist('head')) return 0;
    const { sum } = this.head();
    return sum?.epoch === this.epochs().starts.at(-1)?.epoch ? sum?.value : undefined;
  }

  /** Yields all positions of which PositionSum is. It may be read slowly. */
  *positions(): Iterable<readonly [PositionTable, Position]> {
    for (const position of this.commits.positions()) yield ['order', position];
    for (const position of this.ids.positions()) yield ['ids', position];
    for (const position of this.removedIds.positions()) yield ['removedIds', position];
    for (const [, floor] of this.floorsOf('')) yield ['floors', floor];
  }

  /** Returns the epochs of earlier openings. Throws if this version does not know the log's format. */
  epochs(): Epochs {
    const format = this.meta.get('format') ?? FORMAT;
    if (format !== FORMAT && format !== FORMAT_OF_WHOLE_RUNS) {
      throw new Error(
        `the log has format ${JSON.stringify(format)}; this version reads up to ${FORMAT}`,
      );
    }
    return new Epochs((this.meta.get('epochs') as EpochStart[] | undefined) ?? []);
  }

  /** Returns the position of the topic's newest removed event, or 0. */
  floor(topic: string): Position {
    return this.floors.get(topic) ?? 0;
  }

  /** It may be read slowly: it holds no cursor of LMDB from one topic to the next. */
  *floorsOf(prefix: string): Iterable<readonly [topic: string, floor: Position]> {
    const limit = FLOORS_AT_ONCE;
    for (let start = prefix, exclusiveStart = false; ; exclusiveStart = true) {
      const page = [...this.floors.getRange({ start, exclusiveStart, limit })];
      for (const { key, value } of page) {
        if (!key.startsWith(prefix)) return;
        yield [key, value];
      }
      if (page.length < limit) return;
      start = page[limit - 1].key;
    }
  }

  /** How many positions() there are. */
  get positionCount(): number {
    const counts = this.positionTables.map(
      (table) => (table.getStats() as DatabaseStats).entryCount,
    );
    return counts.reduce((sum, count) => sum + count, 0);
  }

  /** Makes the changes of a commit. Call within write(). Returns what the log holds then, where it held `before`. */
  put(commit: EngineCommit, before: Held): Held {
    const { runs, removal, horizon, lag } = commit;
    const emptied = this.emptiedBy(commit);
    const sum = new PositionSum(before.sum);
    this.remove(removal, horizon, sum);
    const bytes = before.bytes + bytesOf(runs) - removedBytes(removal);
    const topics = before.topics + this.runs.put(runs) - emptied;
    this.commits.put(runs, sum);
    this.ids.put(commit, sum);
    const newest = runs.at(-1);
    const last = newest
      ? { position: newest.last, storedAt: newest.storedAt, wall: Date.now(), lag }
      : this.head();
    const head: Head = { ...last, bytes, topics, sum: { epoch: this.epoch!, value: sum.value } };
    void this.meta.put('head', head);
    return { bytes, topics, sum: sum.value };
  }

  /** Returns how many topics lose all that they hold by a commit, and get nothing by it. */
  private emptiedBy({ runs, removal }: EngineCommit): number {
    if (removal.runs.size === 0) return 0;
    const stored = new Set(runs.map(({ topic }) => topic));
    let emptied = 0;
    for (const [topic, gone] of removal.runs) {
      if (stored.has(topic)) continue;
      if (this.runs.newest(topic, MAX_POSITION)?.first === gone.at(-1)?.first) emptied++;
    }
    return emptied;
  }

  /**
   * Runs `puts` in one transaction, or in a second one after lmdb has given up the first one for no reason. Rejects with the reason
   * if that fails. Every write goes through here.
   *
   * When a commit uses up the free pages that lmdb knows of, lmdb (up to 3.5.6, mdb_freelist_save) looks at a size that it has never
   * set, and fails with MDB_BAD_TXN where that is 0, as it is on the stack of a thread that commits for the first time. Nothing is
   * stored then. lmdb also forgets the free pages that it knows of, and a commit that has to read them anew does not fail so.
   */
  async write(puts: () => void): Promise<void> {
    const first = await this.failureOf(puts);
    const failure = first?.code === BAD_TRANSACTION ? await this.failureOf(puts) : first;
    if (failure) throw failure;
  }

  private async failureOf(puts: () => void): Promise<CommitFailure | undefined> {
    try {
      await this.root.batch(puts);
      return undefined;
    } catch (error) {
      return reasonOf(error as CommitFailure);
    }
  }

  /** Closes LMDB. Without fsync, the caller must flush the file. */
  async close(): Promise<void> {
    await this.root.close();
  }

  /**
   * Keeps LMDB from writing over the pages of the last commit.
   *
   * @returns a function that lets it do so again: call it once, before close()
   */
  holdPages(): () => void {
    const transaction = this.root.useReadTransaction();
    return () => transaction.done();
  }

  get pageBytes(): number {
    return (this.meta.getStats() as DatabaseStats).pageSize;
  }

  /** Returns how many bytes of the file are free. */
  freeBytes(): number {
    const stats = this.databases.map((database) => database.getStats() as DatabaseStats);
    const used = stats.reduce(
      (sum, { treeBranchPageCount, treeLeafPageCount, overflowPages }) =>
        sum + treeBranchPageCount + treeLeafPageCount + overflowPages,
      0,
    );
    return stats[0].pageSize * Math.max(0, stats[0].lastPageNumber + 1 - used);
  }

  private remove({ runs, commits }: Removal, horizon: DedupHorizon, sum: PositionSum): void {
    let count = 0;
    for (const [topic, gone] of runs) {
      for (const run of gone) {
        if (isRemembered(run, horizon))
          this.removedIds.put(topic, run, this.runs.bytesOf(topic, run), sum);
        this.runs.remove(topic, run);
      }
      const floor = gone[gone.length - 1].last;
      sum.subtract('floors', this.floor(topic));
      sum.add('floors', floor);
      void this.floors.put(topic, floor);
      count += gone.length;
    }
    for (const first of new Set(commits)) this.commits.remove(first, sum);
    // It looks at more records than were put, so old ones do not pile up.
    if (count > 0) this.removedIds.forget(horizon, 2 * count, sum);
  }
}

function removedBytes({ runs }: Removal): number {
  let bytes = 0;
  for (const gone of runs.values()) for (const { size } of gone) bytes += size;
  return bytes;
}

/** Handles the second promise of a failed commit, and returns the reason that it has. */
async function reasonOf(error: CommitFailure): Promise<CommitFailure> {
  try {
    await error.commitError;
  } catch (reason) {
    return reason as CommitFailure;
  }
  return error;
}
