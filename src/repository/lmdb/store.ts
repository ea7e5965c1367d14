import { type Database, open, type RootDatabase } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import type { CommitRecord, EngineCommit, Removal } from '../engine.js';
import { type EpochStart, Epochs } from '../epochs.js';
import type { LastStored } from '../log-clock.js';
import { type DedupHorizon, isRemembered } from '../recent-ids.js';
import { CommitTable } from './commit-table.js';
import { IdTable } from './id-table.js';
import { RemovedIds } from './removed-ids.js';
import { RunTable } from './run-table.js';

const FORMAT = 2;
/** Its runs have no pieces; what it gets now has. */
const FORMAT_OF_WHOLE_RUNS = 1;
/** Address space, not memory or disk: the log grows to it without a remap, and beyond it with one. */
const MAP_BYTES = 64 * 2 ** 30;

/** How the log stood after its last commit; a log of an earlier version has no `wall` and no `lag`. */
interface Head extends LastStored {
  readonly position: Position;
  /** The size of all events held. */
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
  readonly runs: RunTable;
  readonly commits: CommitTable;
  readonly ids: IdTable;
  readonly removedIds: RemovedIds;

  private readonly root: RootDatabase;
  private readonly meta: Database<unknown, string>;
  /** The position of the newest removed event, for each topic that lost any. */
  private readonly floors: Database<Position, string>;
  private readonly databases: readonly Database[];

  constructor(path: string, fsync: boolean) {
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
    this.databases = [meta, runs, pieces, ids, order, floors, removed];
    this.runs = new RunTable(runs, pieces);
    this.commits = new CommitTable(order);
    this.ids = new IdTable(ids);
    this.removedIds = new RemovedIds(removed);
  }

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

  floor(topic: string): Position {
    return this.floors.get(topic) ?? 0;
  }

  /** Call within a write. */
  put(commit: EngineCommit, heldBytes: number): void {
    const { runs, removal, horizon, lag } = commit;
    this.remove(removal, horizon);
    this.runs.put(runs);
    this.commits.put(runs);
    this.ids.put(commit);
    const newest = runs.at(-1);
    const head: Head = newest
      ? {
          position: newest.last,
          storedAt: newest.storedAt,
          wall: Date.now(),
          lag,
          bytes: heldBytes,
        }
      : { ...this.head(), bytes: heldBytes };
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

  private remove({ runs, commits }: Removal, horizon: DedupHorizon): void {
    let count = 0;
    for (const [topic, gone] of runs) {
      for (const run of gone) {
        if (isRemembered(run, horizon))
          this.removedIds.put(topic, run, this.runs.bytesOf(topic, run));
        this.runs.remove(topic, run);
      }
      void this.floors.put(topic, gone[gone.length - 1].last);
      count += gone.length;
    }
    for (const first of commits) this.commits.remove(first);
    // More than were put.
    if (count > 0) this.removedIds.forget(horizon, 2 * count);
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
