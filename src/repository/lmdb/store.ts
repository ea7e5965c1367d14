import { type Database, open, type RootDatabase } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import type { Commit } from '../append-queue.js';
import { type EpochStart, Epochs } from '../epochs.js';
import type { DedupWindow, RecentIds } from '../recent-ids.js';
import type { RetentionLimits } from '../retention.js';
import { IdTable } from './id-table.js';
import { RemovedIds } from './removed-ids.js';
import { type CommitRecord, RetentionTable } from './retention-table.js';
import { RunTable } from './run-table.js';

const FORMAT = 2;
/** Its runs have no pieces; what it gets now has. */
const FORMAT_OF_WHOLE_RUNS = 1;
/** Address space, not memory or disk: the log grows to it without a remap, and beyond it with one. */
const MAP_BYTES = 64 * 2 ** 30;

/** Up to where the log goes, as of its last commit. */
interface Head {
  readonly position: Position;
  readonly storedAt: number;
  /** When that was by the machine's clock; not in a log of an earlier version. */
  readonly wall?: number;
  /** Of the log's clock. */
  readonly lag?: number;
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

/** The LMDB file and the tables in it. */
export class Store {
  constructor(
    private readonly root: RootDatabase,
    readonly runs: RunTable,
    readonly ids: IdTable,
    readonly retention: RetentionTable,
    readonly removedIds: RemovedIds,
    private readonly meta: Database<unknown, string>,
    private readonly databases: readonly Database[],
  ) {}

  head(): Head {
    return (this.meta.get('head') as Head | undefined) ?? { position: 0, storedAt: 0, bytes: 0 };
  }

  /**
   * Each opening of the log is an epoch: nothing tells a log from a copy that was put in its place, or says what
   * a crash without fsync has lost, and either may have given out positions after the head.
   */
  async beginEpoch(head: Position): Promise<Epochs> {
    const epochs = this.epochs().begun(head);
    await this.write(() => {
      void this.meta.put('format', FORMAT);
      void this.meta.put('epochs', epochs.starts);
    });
    return epochs;
  }

  /** Those of earlier openings. Throws if this version does not know how the log is written. */
  epochs(): Epochs {
    const format = this.meta.get('format') ?? FORMAT;
    if (format !== FORMAT && format !== FORMAT_OF_WHOLE_RUNS) {
      throw new Error(
        `the log has format ${JSON.stringify(format)}; this version reads up to ${FORMAT}`,
      );
    }
    return new Epochs((this.meta.get('epochs') as EpochStart[] | undefined) ?? []);
  }

  /** To be called within a write. */
  put(commit: Commit, heldBytes: number, lag: number): void {
    const newest = commit.runs.at(-1);
    const head: Head = newest
      ? {
          position: newest.last,
          storedAt: newest.storedAt,
          wall: Date.now(),
          lag,
          bytes: heldBytes,
        }
      : { ...this.head(), bytes: heldBytes };
    this.runs.put(commit.runs);
    this.ids.put(commit);
    void this.meta.put('head', head);
  }

  /** One transaction. Every write goes through here: a failed one must not end the process. */
  async write(puts: () => void): Promise<void> {
    try {
      await this.root.batch(puts);
    } catch (error) {
      throw await reasonOf(error as CommitFailure);
    }
  }

  /** Closes LMDB. Without fsync this does not flush: the caller must. */
  async close(): Promise<void> {
    await this.root.close();
  }

  /** Bytes of the file that hold nothing. */
  freeBytes(): number {
    const stats = this.databases.map((database) => database.getStats() as DatabaseStats);
    const used = stats.reduce(
      (sum, { treeBranchPageCount, treeLeafPageCount, overflowPages }) =>
        sum + treeBranchPageCount + treeLeafPageCount + overflowPages,
      0,
    );
    return stats[0].pageSize * Math.max(0, stats[0].lastPageNumber + 1 - used);
  }
}

export function openStore(
  path: string,
  fsync: boolean,
  dedup: DedupWindow,
  recent: RecentIds,
  limits: RetentionLimits,
): Store {
  const root = open({
    path,
    mapSize: MAP_BYTES,
    maxDbs: 8,
    noSync: !fsync,
    // With lmdb's default, a commit is readable before it is durable, promises of one are fulfilled out of
    // order, and a copied file may be read from a page that was never flushed.
    overlappingSync: false,
    // A batch a commit. With batches a turn of the event loop, a failed commit rejects promises that nobody
    // holds, and ends the process.
    eventTurnBatching: false,
  });
  const meta = root.openDB<unknown, string>({ name: 'meta', encoding: 'json' });
  const bytes = { encoding: 'binary', keyEncoding: 'binary' } as const;
  const runs = root.openDB<Buffer, Buffer>({ name: 'runs', ...bytes });
  const pieces = root.openDB<Buffer, Buffer>({ name: 'pieces', ...bytes });
  const ids = root.openDB<Buffer, Buffer>({ name: 'ids', ...bytes });
  const order = root.openDB<CommitRecord, Buffer>({
    name: 'order',
    encoding: 'json',
    keyEncoding: 'binary',
  });
  const floors = root.openDB<Position, string>({ name: 'floors', encoding: 'json' });
  const removed = root.openDB<Buffer, Buffer>({ name: 'removed-ids', ...bytes });
  const runTable = new RunTable(runs, pieces);
  const removedIds = new RemovedIds(removed, recent);
  return new Store(
    root,
    runTable,
    new IdTable(ids, dedup, recent),
    new RetentionTable(order, floors, runTable, removedIds, limits),
    removedIds,
    meta,
    [meta, runs, pieces, ids, order, floors, removed],
  );
}

async function reasonOf(error: CommitFailure): Promise<Error> {
  try {
    await error.commitError;
  } catch (reason) {
    return reason as Error;
  }
  return error;
}
