import type { Position } from '../wire/cursor.js';
import type { EventBatch, Run } from '../wire/event-batch.js';
import type { Commit } from './commit.js';
import type { Epochs } from './epochs.js';
import type { AppendError, Backup, Durability, LogStatus } from './event-repository.js';
import type { LastStored } from './log-clock.js';
import type { CommitIds, DedupHorizon } from './recent-ids.js';
import type { HeldRun } from './stored-run.js';

/**
 * Stores the runs of one EventLog, which is its only writer. The log decides what is stored and removed. The engine does
 * it, and says what it holds.
 *
 * All methods but commit() and close() answer synchronously, change nothing, and throw only if the store is damaged. The
 * log calls commit() only when the commit before has settled, and close() once, after the last commit has.
 *
 * During a commit, the other methods may or may not show what it stores and removes. That does no harm: the log reads
 * no further than its head, and looks at what it has removed only in its next commit.
 */
export interface Engine {
  readonly durability: Durability;
  /** Tells operators where the events are kept. */
  readonly location: string;
  /** The log's state when the engine was opened. */
  readonly start: EngineStart;
  /** The size of all framed events held, in bytes, as of the last commit that succeeded. */
  readonly heldBytes: number;
  /** The number of topics that hold something, as of the same commit. */
  readonly topicCount: number;
  readonly runs: RunIndex;
  readonly commits: CommitIndex;

  /**
   * Makes all of a commit durable, what it stores and what it removes, or nothing of it. The engine may keep the buffers
   * it gets, because nobody changes them.
   *
   * Rejects if the commit was not made: with an AppendError that says what to do, or with the store's own error. The
   * next commit then has later positions.
   */
  commit(commit: EngineCommit): Promise<void>;

  /**
   * Returns why a commit of `bytes` of events (0: it only removes) would be refused now; undefined: it would not. It ends backups
   * that take the room.
   */
  refusal(bytes: number): AppendError | undefined;

  /** Returns the position of the newest removed event of a topic; 0 if there is none. */
  floor(topic: string): Position;

  /** Yields the topics that begin with a prefix and have lost events, with their floors, in any order. */
  floors(prefix: string): Iterable<readonly [topic: string, floor: Position]>;

  /** Returns the id of a removed event; undefined if there was none, or if the last commit let the engine forget it. */
  removedId(topic: string, position: Position): Buffer | undefined;

  /** Returns the size of the engine's file and of its disk, as LogStatus.disk has them; undefined if there is none. */
  disk(): Promise<LogStatus['disk']>;

  /** Yields the id hashes of what was stored before the engine was opened, the newest first. */
  newestIds(): Iterable<CommitIds>;

  /** EventRepository.backup(); undefined if the engine has none. */
  backup?(): Promise<Backup>;

  /** Flushes and releases everything. Rejects if what was stored may not be found again. */
  close(): Promise<void>;
}

export interface EngineStart extends LastStored {
  /** The last one began when the engine was opened. */
  readonly epochs: Epochs;
  readonly head: Position;
}

export interface EngineCommit extends Commit {
  readonly removal: Removal;
  /** The engine may forget the ids of events before this. */
  readonly horizon: DedupHorizon;
  /** LogClock.lag(), which the next process needs. */
  readonly lag: number;
}

/** The runs and records that one commit removes. */
export interface Removal {
  /** For each topic its oldest runs, without a gap. */
  readonly runs: ReadonlyMap<string, readonly HeldRun[]>;
  /** Records of the commit index: the `first` of each. One may be there twice, and be removed already. */
  readonly commits: readonly Position[];
}

/** The runs that are held, by topic. */
export interface RunIndex {
  /**
   * Returns a topic's events after a position and up to another: the first run and further ones up to `maxBytes`, or
   * undefined if there are none. Nobody changes these bytes later. The caller has made sure that `after` is not before
   * the topic's floor().
   */
  read(topic: string, after: Position, upTo: Position, maxBytes: number): EventBatch | undefined;

  /** Returns the run of a topic that starts at a position; undefined if none that is held does. Nobody changes its bytes later. */
  at(topic: string, first: Position): Run | undefined;

  /** Returns a topic's oldest run that starts at or after a position. */
  oldest(topic: string, from: Position): HeldRun | undefined;

  /** Returns a topic's newest run that starts at or before a position. */
  newest(topic: string, upTo: Position): HeldRun | undefined;

  /** Yields a topic's runs that start up to a position, the oldest first. */
  upTo(topic: string, position: Position): Iterable<HeldRun>;

  /**
   * Yields the topics that hold something and begin with a prefix, each once, in any fixed order; only those after one, if one
   * is given.
   */
  topics(after: string | undefined, prefix?: string): Iterable<string>;
}

/** Lists commits over all topics, the oldest first. RunIndex has an order only within a topic. */
export interface CommitIndex {
  /** Yields records in the order of their positions; only those that begin after a position, if one is given. */
  after(position: Position | undefined): Iterable<CommitRecord>;

  /** Yields records that begin at or before a position, the newest first. */
  upTo(position: Position): Iterable<CommitRecord>;
}

/** Says what a commit stored. A large commit may have several records, each for a part of its runs. */
export interface CommitRecord {
  /** The position of the first event. */
  readonly first: Position;
  readonly storedAt: number;
  readonly runs: readonly (readonly [topic: string, first: Position])[];
}
