import type { CheckedEvents } from '../wire/check-events.js';
import type { Cursor, Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import type { TopicSet } from '../wire/topic-set.js';
import type { FailureReason, LogReport } from './log-report.js';
import { OneTopicReader, type TopicReader } from './topic-reader.js';

/** Where the events of an append are safe once it has resolved. */
export type Durability = 'memory' | 'fsync' | 'replicated';

/** How many ids deduplication remembers, and how long (milliseconds of the log's own time). */
export interface DedupWindow {
  readonly ids: number;
  readonly milliseconds: number;
}

/**
 * The log of events: one sequence of positions over all topics, each topic's events in order.
 *
 * Every engine promises, and test/contract/event-repository.ts checks:
 * 1. Ordered: a topic's events are read in the order of their positions, which is the order in which
 *    each writer appended them.
 * 2. Nothing is seen before it is durable: no read returns an event beyond `head`, and `head` moves
 *    only over events that are as durable as `durability` says.
 * 3. Complete: once an append has resolved, `head` has passed its events and every read finds them.
 * 4. A position is never used again, whatever is removed and whenever the process restarts.
 * 5. A prefix: after one append of a writer has failed, none of its later ones is stored. Its appends settle in their order.
 *
 * Nothing here says that this process is the only writer, that positions of one topic are consecutive,
 * or how long an append takes. Where other processes write to the log, `head` is what this process knows of it.
 */
export abstract class EventRepository {
  abstract readonly durability: Durability;

  /**
   * An event with the topic and id of one stored within this window is not stored. Both numbers are 0 if that is off. The time is shorter
   * than the configured one while more than `ids` ids came within that; where other processes write to the log, as far as this one knows.
   */
  abstract readonly dedupWindow: DedupWindow;

  /** Tells operators where the events are kept. */
  abstract readonly location: string;

  /** The newest durable position; 0 in a log that never held an event. */
  abstract readonly head: Position;

  /**
   * Grows by 1 when the log turns out to be another one than before, such as a stream that was restored from a backup while
   * this process used it. Positions that were known before then mean nothing any more.
   */
  readonly history: number = 0;

  /** Returns the cursor of a position that this log has given out, or of 0. */
  abstract cursorAt(position: Position): Cursor;

  /**
   * Resolves once this process knows all that was stored before the call. If a cursor is given that it does not know then, it waits
   * some seconds more for it to come. Returns undefined if no other process writes to the log.
   *
   * @throws StoreUnavailableError
   */
  catchUp(_cursor?: Cursor): Promise<void> | undefined {
    return undefined;
  }

  /** Says where a client's cursor stands in this log, as far as this process knows it. */
  abstract locate(cursor: Cursor): CursorPlace;

  /** Returns a writer for one upload. It holds nothing that must be released. */
  abstract openWriter(): EventWriter;

  /**
   * Returns events of a topic strictly after a position and up to the head: the rest of one run, and further runs as
   * long as all have up to `maxBytes`; undefined if there are no events. It makes no promise if it has the answer in
   * memory, because every watch calls it for every batch.
   *
   * @throws EventsRemovedError if events of the topic after the position were removed
   */
  abstract read(
    topic: string,
    after: Position,
    maxBytes: number,
  ): EventBatch | undefined | Promise<EventBatch | undefined>;

  /**
   * Returns the position of the topic's newest removed event, or 0. All events after it are held. If the log does not know
   * that position, it returns a later one before which no event of the topic is held.
   */
  abstract floor(topic: string): Promise<Position>;

  /**
   * Returns the position to read after to get the topic's events stored at or after a time (milliseconds of the
   * server's clock, not in the future); undefined if there are none yet. If that clock was set since, older events may
   * come, too; none is missed.
   */
  abstract positionBefore(topic: string, since: number): Promise<Position | undefined>;

  /** Returns the position to read after to get the newest `count` (at least 1) events of a topic up to a head. */
  abstract positionBeforeLast(topic: string, count: number, head: Position): Promise<Position>;

  /**
   * Returns up to `limit` names of topics that begin with a prefix, after one of them if one is given, in an order that is always
   * the same. All topics that hold an event up to the head are among them; where `after` is given, those that held one a
   * minute ago. A topic may be among them that holds nothing any more, or that is being written for the first time.
   *
   * @param prefix the beginning of a valid topic, or empty
   */
  abstract topics(
    prefix: string,
    after: string | undefined,
    limit: number,
  ): Promise<readonly string[]>;

  /** Returns a reader of these topics. It holds nothing until it is opened. */
  readerOf(topics: TopicSet): TopicReader {
    return topics.topic === undefined
      ? this.setReader(topics)
      : new OneTopicReader(this, topics.topic);
  }

  /** Returns a reader of several topics, in the order of their positions. */
  protected abstract setReader(topics: TopicSet): TopicReader;

  /** Describes what is held of a topic up to the head; undefined if that is nothing. */
  abstract heldOf(topic: string): Promise<HeldTopic | undefined>;

  /** Returns how many events of a topic are held after a position and up to the head. */
  abstract countAfter(topic: string, after: Position): Promise<number>;

  /**
   * Removes what is stored of a topic now. Resolves when that is durable; if it rejects, some or all of it may be removed, now or by a later commit. Watches
   * that have not read it yet are told, as when retention removes events. Later events of the topic follow as ever.
   */
  abstract removeTopic(topic: string): Promise<void>;

  /** What the log counts, for metrics. */
  abstract readonly report: LogReport;

  /** Returns what the log is like now, for metrics. It does not wait long: figures that can't be had soon are missing. */
  abstract status(): Promise<LogStatus>;

  /**
   * Returns for how long (milliseconds, by the log's time) the topic's first event after a position has been stored; undefined
   * if there is none, or if that can't be found out soon.
   */
  abstract ageOfNext(topic: string, after: Position): Promise<number | undefined>;

  /**
   * Begins a backup of all that is stored now. Until it is released, the log's file grows by all that is stored.
   *
   * @throws BackupUnsupportedError
   */
  abstract backup(): Promise<Backup>;

  /** Calls `listener` with the topics of each commit once their events can be read. */
  abstract onDurable(listener: (topics: Iterable<string>) => void): void;

  /** Calls `listener` each time that `history` has grown, or may have: then there may be events that onDurable() did not tell of. */
  onHistoryChange(_listener: () => void): void {}

  /** Appends that wait for another machine, which does not answer, fail now: the process is about to end. */
  giveUp(): void {}

  /**
   * Flushes and closes the store. Appends that are not durable by then fail. Another call settles as the first one
   * does.
   */
  abstract close(): Promise<void>;
}

/** What a log is like at a moment. What does not apply to its engine, or can't be found out, is undefined. */
export interface LogStatus {
  /** The size of all events held, in bytes. */
  readonly heldBytes?: number;
  /** The oldest event held, and the newest one that the log ever held: where they are, and when they were stored. */
  readonly oldest?: StoredAt;
  readonly newest?: StoredAt;
  /** The size of the log's file, and the size and the free space of its disk, in bytes. */
  readonly disk?: { readonly fileBytes: number; readonly size: number; readonly free: number };
  readonly nats?: {
    readonly isConnected: boolean;
    /** How many messages of the stream this process has not applied yet. */
    readonly lag: number;
  };
}

/** A copy of the whole log as of one moment (backup-file.ts). */
export interface Backup {
  /** Its size. */
  readonly bytes: number;
  /** By how much the log's file has grown since the backup began. */
  readonly grownBytes: number;
  /**
   * Yields its bytes, to be called once.
   *
   * @throws AppendError 'storage-full' if the disk has no room for what is stored meanwhile
   */
  chunks(): AsyncIterable<Buffer>;
  /** Lets the log use again the room that the backup keeps. Calling it again does nothing. */
  release(): void;
}

/** The log can't be backed up; the message says what to do instead. */
export class BackupUnsupportedError extends Error {}

/** What is held of a topic. */
export interface HeldTopic {
  readonly events: number;
  /** The size of its framed events. */
  readonly bytes: number;
  readonly oldest: StoredAt;
  readonly newest: StoredAt;
}

/** The position of an event, and the log's time when it was stored, in milliseconds. */
export interface StoredAt {
  readonly position: Position;
  readonly time: number;
}

/**
 * Where a cursor stands: in the log, ahead of it, or in a history that this log does not share. Where the log has lost the record of its
 * oldest epochs, nobody knows of a cursor of that time whether it is of one of those or of another log: 'forgotten-epoch'.
 */
export type CursorPlace = 'in-log' | 'ahead' | 'other-epoch' | 'forgotten-epoch';

export interface EventWriter {
  /**
   * Appends events in order, after those that this writer appended before. It leaves out events whose (topic, id) the
   * log has stored within its `dedupWindow`. Resolves when all events are durable and can be read; rejects with
   * an AppendError.
   */
  append(events: CheckedEvents): Promise<Appended>;

  /** Returns undefined if the writer may append more now; else a promise of when it may. */
  room(): Promise<void> | undefined;
}

export interface Appended {
  /** The cursor of the last of the events. */
  readonly last: Cursor;
  /** How many were in the log already, with the same topic and id, and were not stored again. */
  readonly duplicates: number;
}

/** Retention has removed events after the position that was asked for. */
export class EventsRemovedError extends Error {
  constructor() {
    super('events after this position were removed');
  }
}

/** The store does not answer. It may do so later. */
export class StoreUnavailableError extends Error {}

/**
 * An append failed. Neither its events are stored, nor any that the same writer appended after them. With the reason
 * 'unavailable', nobody knows yet whether its events are stored, and some that were appended after them may be, too. With 'refused',
 * its events may be stored if the engine failed while it wrote them, or after that.
 */
export class AppendError extends Error {
  /** With 'storage-full': how many bytes of events there is room for, if the store knows. */
  readonly room: number | undefined;

  constructor(
    readonly reason: FailureReason,
    message: string,
    { room, ...options }: ErrorOptions & { readonly room?: number } = {},
  ) {
    super(message, options);
    this.room = room;
  }
}
