import { statfsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { Position } from '../../wire/cursor.js';
import type { EventBatch } from '../../wire/event-batch.js';
import { bytesOf, type Commit } from '../append-queue.js';
import { EmbeddedRepository, type EmbeddedStart } from '../embedded-repository.js';
import { AppendError, type Durability, EventsRemovedError } from '../event-repository.js';
import { type LogClock, logClock } from '../log-clock.js';
import { type DedupWindow, NO_DEDUP, RecentIds } from '../recent-ids.js';
import { KEEP_ALL, overQuota, type RetentionLimits } from '../retention.js';
import { refuseUnusableDirectory, refuseUnusableFile, shareWithGroup } from './access.js';
import type { Notices } from './check-progress.js';
import { takeDirectory } from './directory-lock.js';
import { MARK, NOTE, removeNote, writeNote } from './known-file.js';
import { checkEvents, checkFile } from './log-check.js';
import { LogFile } from './log-file.js';
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
  /** Receives messages for the operator. */
  readonly notices?: Notices;
}

const NO_NOTICES: Notices = { info: () => {}, error: () => {} };

/** The log's own directory, within the data directory. */
const LOG = 'log';
/** The files that may be in it beside data.mdb. */
const OTHER_FILES = ['lock.mdb', NOTE, `${NOTE}.new`, MARK];
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

  private readonly notices: Notices;
  /** The last commit was refused, because the log's file is not at its path. */
  private isFileMissing = false;
  /** The file disappeared while a commit was being written: this process and the file may differ until a restart. */
  private needsRestart = false;

  private constructor(
    override readonly location: string,
    options: LmdbOptions,
    private readonly file: LogFile,
    private readonly store: Store,
    start: EmbeddedStart,
    private heldBytes: number,
    private readonly unlock: () => void,
  ) {
    super(start);
    this.durability = options.fsync ? 'fsync' : 'memory';
    this.notices = options.notices ?? NO_NOTICES;
  }

  static async open(options: LmdbOptions): Promise<LmdbRepository> {
    const location = resolve(options.directory);
    const path = join(location, LOG);
    const { fsync, dedup = NO_DEDUP, retention = KEEP_ALL, notices = NO_NOTICES } = options;
    const recent = new RecentIds(dedup);
    const unlock = takeDirectory(location);
    let file: LogFile | undefined;
    let store: Store | undefined;
    try {
      refuseUnusableDirectory(path);
      const open = (at: string): Store => openStore(at, fsync, dedup, recent, retention);
      await makeNewLog(location, LOG, OTHER_FILES, open);
      refuseUnusableFile(join(path, 'lock.mdb'));
      file = LogFile.open(join(path, 'data.mdb'), location);
      const isChecked = await checkFile(path, file, notices);
      // Opening a log of an earlier format writes to it.
      removeNote(path);
      store = open(path);
      const epochsBefore = store.epochs();
      const head = store.head();
      if (isChecked) await checkEvents(file, store, epochsBefore, notices);
      // From the first commit on, the note must say whether commits are flushed.
      writeNote(path, file, fsync ? 'flushing' : 'unflushed');
      const names = ['data.mdb', 'lock.mdb', NOTE].map((name) => join(path, name));
      shareWithGroup(location, [join(location, 'lock'), path, ...names]);
      const { position, storedAt, bytes } = head;
      const clock = options.clock ?? logClock(head);
      store.ids.recall(clock.now());
      const epochs = await store.beginEpoch(position);
      const start = { epochs, head: position, storedAt, clock, recent, tailBytes: TAIL_BYTES };
      return new LmdbRepository(location, options, file, store, start, bytes, unlock);
    } catch (error) {
      // The first error is the cause of any that follow.
      await store?.close().catch(() => {});
      file?.close();
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

  protected override async closeStore(): Promise<void> {
    try {
      await this.store.close();
      // Where each commit is not flushed, LMDB leaves it to the operating system; an orderly end does not.
      await this.file.flush();
      if (!this.file.isAtItsPath()) throw new Error(missing(this.file.path));
      writeNote(dirname(this.file.path), this.file, 'closed');
    } finally {
      this.file.close();
      this.unlock();
    }
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
    this.refuseMissingFile();
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
      this.needsRestart = !this.file.isAtItsPath();
      if (this.needsRestart) this.refuseMissingFile();
    } catch (error) {
      retention.forgetChoice();
      throw error;
    }
    this.heldBytes = bytes;
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

function missing(path: string): string {
  return (
    `${path} is no longer the log's file: it was removed, renamed or replaced while it was open. Nothing is stored ` +
    'until it is back; a restart goes on with what is at that path then'
  );
}

const RESTART =
  '. The file disappeared while a commit was being written, so writing resumes only after a restart, even if the file ' +
  'is put back.';
