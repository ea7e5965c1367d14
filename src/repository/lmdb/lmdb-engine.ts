import { statfsSync } from 'node:fs';
import { stat, statfs } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { formatCursor, type Position } from '../../wire/cursor.js';
import { backupBytes, encodeBackup } from '../backup-file.js';
import type { CommitIndex, Engine, EngineCommit, EngineStart, RunIndex } from '../engine.js';
import { EventLog, type LogOptions } from '../event-log.js';
import { AppendError, type Backup, type Durability, type LogStatus } from '../event-repository.js';
import type { CommitIds } from '../recent-ids.js';
import {
  accessError,
  isSystemError,
  refuseUnusableDirectory,
  refuseUnusableFile,
  shareWithGroup,
} from './access.js';
import type { Notices } from './check-progress.js';
import { takeDirectory } from './directory-lock.js';
import { MARK, NOTE, removeNote, writeNote } from './known-file.js';
import { checkEvents, checkFile, positionSum } from './log-check.js';
import { LogFile } from './log-file.js';
import { makeNewLog } from './new-log.js';
import { refuseFullDisk, reserveLockFile } from './room.js';
import { Snapshot } from './snapshot.js';
import { type Held, Store } from './store.js';

export interface LmdbOptions {
  readonly directory: string;
  /** True if each commit is flushed to disk. If false, a crash of the machine loses events. */
  readonly fsync: boolean;
  /** Receives messages for the operator. */
  readonly notices?: Notices;
}

const NO_NOTICES: Notices = { info: () => {}, error: () => {} };

/** The log's own directory, within the data directory. */
export const LOG_DIRECTORY = 'log';
/** The files that may be in it beside data.mdb. */
const OTHER_FILES = ['lock.mdb', NOTE, `${NOTE}.new`, MARK];
/** A commit that stores events must leave this much of the disk free, for LMDB's own pages and other files. */
const RESERVE_BYTES = 16 * 2 ** 20;
/** A commit that only removes events needs this much free disk. It writes mostly the ids of the removed events. */
const REMOVAL_BYTES = 8 * 2 ** 20;
/** A start on a full disk needs this many free pages in the file, in which LMDB stores the new epoch and its own records. */
const START_PAGES = 16;

/** Opens the log of a data directory. */
export async function openLmdbLog(options: LmdbOptions & LogOptions): Promise<EventLog> {
  return new EventLog(await LmdbEngine.open(options), options);
}

/** Keeps a log in an LMDB file (store.ts), which it locks, checks when it opens it, and watches while it is open. */
export class LmdbEngine implements Engine {
  readonly durability: Durability;
  readonly runs: RunIndex;
  readonly commits: CommitIndex;

  /** Settles when the commit that is under way is over. */
  private committing: Promise<unknown> | undefined;
  private readonly snapshots = new Set<Snapshot>();
  /** True if the last commit was refused because the log's file is not at its path. */
  private isFileMissing = false;
  /** True from when the file disappeared during a commit: nobody knows then whether the file has that commit. */
  private needsRestart = false;

  private constructor(
    readonly location: string,
    fsync: boolean,
    private readonly file: LogFile,
    private readonly store: Store,
    readonly start: EngineStart,
    private held: Held,
    private readonly notices: Notices,
    private readonly unlock: () => void,
  ) {
    this.durability = fsync ? 'fsync' : 'memory';
    this.runs = store.runs;
    this.commits = store.commits;
  }

  static async open({ directory, fsync, notices = NO_NOTICES }: LmdbOptions): Promise<LmdbEngine> {
    const location = resolve(directory);
    const path = join(location, LOG_DIRECTORY);
    const lock = takeDirectory(location);
    const openStore = (at: string): Store => {
      reserveLockFile(at);
      return new Store(at, fsync);
    };
    let file: LogFile | undefined;
    let store: Store | undefined;
    try {
      refuseUnusableDirectory(path);
      await makeNewLog(location, LOG_DIRECTORY, OTHER_FILES, openStore);
      refuseUnusableFile(join(path, 'lock.mdb'));
      file = LogFile.open(join(path, 'data.mdb'), location);
      const isChecked = await checkFile(path, file, notices);
      // Opening a log of an earlier format writes to it.
      removeNote(path);
      store = openStore(path);
      const epochsBefore = store.epochs();
      if (isChecked) await checkEvents(file, store, epochsBefore, notices);
      const sum = await positionSum(file, store, isChecked, notices);
      const head = store.head();
      if (store.freeBytes() < START_PAGES * store.pageBytes) refuseFullDisk(location);
      // From the first commit on, the note must say whether commits are flushed.
      writeNote(path, file, fsync ? 'flushing' : 'unflushed');
      const names = ['data.mdb', 'lock.mdb', NOTE].map((name) => join(path, name));
      shareWithGroup(location, [join(location, 'lock'), path, ...names]);
      const epochs = await store.beginEpoch(sum);
      const start: EngineStart = { ...head, epochs, head: head.position };
      const { bytes, topics = store.runs.countTopics() } = head;
      const held = { bytes, topics, sum };
      return new LmdbEngine(location, fsync, file, store, start, held, notices, lock.release);
    } catch (error) {
      // The first error is the cause of any that follow.
      await store?.close().catch(() => {});
      file?.close();
      lock.release();
      throw isSystemError(error) ? accessError(path, error) : error;
    }
  }

  async commit(commit: EngineCommit): Promise<void> {
    this.refuseMissingFile();
    let { held } = this;
    this.committing = this.store
      .write(() => void (held = this.store.put(commit, this.held)))
      .finally(() => (this.committing = undefined));
    await this.committing;
    this.needsRestart = !this.file.isAtItsPath();
    if (this.needsRestart) this.refuseMissingFile();
    this.held = held;
  }

  get heldBytes(): number {
    return this.held.bytes;
  }

  get topicCount(): number {
    return this.held.topics;
  }

  /** The log asks before each commit: LMDB reports a full disk as EIO, and may damage the store or end the process. */
  refusal(bytes: number): AppendError | undefined {
    const needed = bytes === 0 ? REMOVAL_BYTES : bytes + RESERVE_BYTES;
    let free: number;
    try {
      const { bavail, bsize } = statfsSync(this.location);
      free = bavail * bsize;
    } catch {
      return undefined; // The directory is gone, or its disk has failed. commit() reports which.
    }
    if (free >= needed) return undefined;
    // The pages that backups keep can't be written to, and uploads go first.
    this.endBackups(
      new AppendError(
        'storage-full',
        `the disk of ${this.location} has no room for what is stored while the log is backed up: make room first`,
      ),
    );
    // Removed events leave free pages in the file, which never shrinks. Half of them count, because they are scattered.
    const room = Math.floor(free + this.store.freeBytes() / 2);
    if (room >= needed) return undefined;
    return new AppendError(
      'storage-full',
      `the disk of ${this.location} has room for ${room} bytes, and ${needed} are needed: ` +
        'make room, or let FEED_RETENTION_MAX_BYTES or FEED_RETENTION_MAX_AGE keep less',
      { room: room - RESERVE_BYTES },
    );
  }

  async disk(): Promise<LogStatus['disk']> {
    try {
      const [{ bavail, blocks, bsize }, file] = await Promise.all([
        statfs(this.location),
        stat(this.file.path),
      ]);
      return { fileBytes: file.size, size: blocks * bsize, free: bavail * bsize };
    } catch {
      return undefined; // The directory is gone, or its disk has failed. commit() reports which.
    }
  }

  floor(topic: string): Position {
    return this.store.floor(topic);
  }

  floors(prefix: string): Iterable<readonly [topic: string, floor: Position]> {
    return this.store.floorsOf(prefix);
  }

  removedId(topic: string, position: Position): Buffer | undefined {
    return this.store.removedIds.at(topic, position);
  }

  newestIds(): Iterable<CommitIds> {
    return this.store.ids.newestFirst();
  }

  async backup(): Promise<Backup> {
    while (this.committing) await this.committing.catch(() => {});
    const snapshot = new Snapshot(this.file, this.store);
    this.snapshots.add(snapshot);
    const { epochs } = this.start;
    const header = {
      bytes: snapshot.bytes,
      at: new Date().toISOString(),
      head: formatCursor(epochs.cursorAt(this.store.head().position)),
    };
    return {
      bytes: backupBytes(header),
      get grownBytes() {
        return snapshot.grownBytes;
      },
      chunks: () => encodeBackup(header, snapshot.chunks()),
      release: () => {
        snapshot.end();
        this.snapshots.delete(snapshot);
      },
    };
  }

  async close(): Promise<void> {
    this.endBackups(new Error('the log is closed'));
    try {
      await this.store.close();
      // Without fsync, LMDB does not flush the file, not even when it closes it.
      await this.file.flush();
      if (!this.file.isAtItsPath()) throw new Error(missing(this.file.path));
      writeNote(dirname(this.file.path), this.file, 'closed');
    } finally {
      this.file.close();
      this.unlock();
    }
  }

  private endBackups(why: Error): void {
    for (const snapshot of this.snapshots) snapshot.end(why);
    this.snapshots.clear();
  }

  /** Throws if the next process would not find the file that a commit is written to, and reports that once. */
  private refuseMissingFile(): void {
    const isMissing = this.needsRestart || !this.file.isAtItsPath();
    const isNew = isMissing && !this.isFileMissing;
    this.isFileMissing = isMissing;
    if (!isMissing) return;
    const message = missing(this.file.path) + (this.needsRestart ? RESTART : '');
    if (isNew) this.notices.error(message);
    throw new AppendError('refused', message);
  }
}

function missing(path: string): string {
  return (
    `${path} is no longer the log's file: it was removed, renamed or replaced while it was open. Nothing is stored ` +
    'until it is back; a restart goes on with what is at that path then'
  );
}

const RESTART =
  '. The file disappeared while a commit was being written, so writing resumes only after a restart, even if the file ' +
  'is put back.';
