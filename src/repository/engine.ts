import type { Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import type { Commit } from './commit.js';
import type { Epochs } from './epochs.js';
import type { AppendError, Durability } from './event-repository.js';
import type { LastStored } from './log-clock.js';
import type { CommitIds, DedupHorizon } from './recent-ids.js';
import type { HeldRun } from './stored-run.js';

/**
 * Where one EventLog, its only writer, keeps its runs. The log decides what is stored and removed; an engine does it,
 * and answers what is held.
 *
 * Turns of the event loop: every method but commit() and close() answers in the caller's turn, changes nothing, and
 * throws only if the store is damaged. commit() is called when the one before has settled, and close() once, after the
 * last commit has.
 *
 * Until a commit has settled, other methods may or may not show what it stores and removes: the log reads no further
 * than its head, and asks for what is removed only in its next commit.
 */
export interface Engine {
  readonly durability: Durability;
  /** For people: where the events are kept. */
  readonly location: string;
  /** How the log stood when the engine was opened. */
  readonly start: EngineStart;
  /** The size of all framed events held, in bytes, as of the last commit that succeeded. */
  readonly heldBytes: number;
  readonly runs: RunIndex;
  readonly commits: CommitIndex;

  /**
   * Makes what a commit stores durable, and removes what it removes: all of it or none. Keeps the bytes it is given,
   * which nobody changes.
   *
   * Rejects if the commit was not made: with an AppendError that says what to do, or with the store's own error. The next
   * commit's positions go on after those of this one.
   */
  commit(commit: EngineCommit): Promise<void>;

  /** Returns why a commit of so many bytes of events (0: one that only removes) would be refused now, if it would be. */
  refusal(bytes: number): AppendError | undefined;

  /** Returns the position of the newest removed event of a topic; 0 if there is none. */
  floor(topic: string): Position;

  /** Returns the id of a removed event, if it is not beyond the horizon of the last commit. */
  removedId(topic: string, position: Position): Buffer | undefined;

  /** Yields the id hashes of what was stored before the engine was opened, the newest first. */
  newestIds(): Iterable<CommitIds>;

  /** Flushes and releases everything. Rejects if what was stored may not be found again. */
  close(): Promise<void>;
}

export interface EngineStart extends LastStored {
  /** The last of them began with this opening. */
  readonly epochs: Epochs;
  readonly head: Position;
}

export interface EngineCommit extends Commit {
  readonly removal: Removal;
  /** The ids of removed events are kept up to here. */
  readonly horizon: DedupHorizon;
  /** LogClock.lag(), for the start of the next process. */
  readonly lag: number;
}

/** What a commit removes. */
export interface Removal {
  /** By topic: its oldest runs, without a gap. */
  readonly runs: ReadonlyMap<string, readonly HeldRun[]>;
  /** The `first` of records of the commit index. */
  readonly commits: readonly Position[];
}

/** The runs that are held, by topic. */
export interface RunIndex {
  /**
   * Returns a topic's events after a position and up to another: the first run and further ones up to `maxBytes`, or
   * undefined if there are none. Nothing changes these bytes later. The caller has looked at floor().
   */
  read(topic: string, after: Position, upTo: Position, maxBytes: number): EventBatch | undefined;

  /** Returns a topic's oldest run that starts at or after a position. */
  oldest(topic: string, from: Position): HeldRun | undefined;

  /** Returns a topic's newest run that starts at or before a position. */
  newest(topic: string, upTo: Position): HeldRun | undefined;

  /** Yields a topic's runs that start up to a position, the oldest first. */
  upTo(topic: string, position: Position): Iterable<HeldRun>;

  /** Yields the topics that hold something, each once, in any fixed order; only those after one, if one is given. */
  topics(after: string | undefined): Iterable<string>;
}

/** The order of commits over all topics: what a topic's runs don't tell. Each commit adds what it stores. */
export interface CommitIndex {
  /** Yields records in the order of their positions; only those after one, if the `first` of one is given. */
  after(first: Position | undefined): Iterable<CommitRecord>;
}

/** What a commit stored, or a part of that. */
export interface CommitRecord {
  /** The position of its first event. */
  readonly first: Position;
  readonly storedAt: number;
  readonly runs: readonly (readonly [topic: string, first: Position])[];
}
