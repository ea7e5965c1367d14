import type { Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';

/**
 * The log as a watch sees it: the events of its topics, in the order of their positions. What is said of a topic in
 * EventRepository holds here for all topics of the watch together.
 */
export interface TopicReader {
  /**
   * Returns the position of the newest removed event of any of the topics, or 0. All of their events after it are held. As
   * EventRepository.floor(), it may be a later one.
   */
  floor(): Promise<Position>;

  /** Returns the position to read after to get all events that were held when floor() returned this. */
  beginning(floor: Position): Position;

  positionBefore(since: number): Promise<Position | undefined>;

  /** @param signal aborts a search that nobody waits for any more */
  positionBeforeLast(count: number, head: Position, signal?: AbortSignal): Promise<Position>;

  /** Call it before read(). Events up to `mayLackUpTo` may be missing; if a later one is, read() throws. */
  open(mayLackUpTo: Position): void;

  /**
   * Returns events after a position, as EventRepository.read(). A batch without events says that there are none up to its `last`,
   * and that the reader has not looked further yet.
   *
   * @throws EventsRemovedError if events after the position were removed that may not be missing
   */
  read(after: Position, maxBytes: number): EventBatch | undefined | Promise<EventBatch | undefined>;

  /** Returns how many events are held after a position; undefined if counting them would take too long. */
  countAfter(after: Position): Promise<number | undefined>;

  ageOfNext(after: Position): Promise<number | undefined>;

  /** Releases what open() has taken. Without open(), and again, it does nothing. */
  close(): void;
}

/** The parts of EventRepository that read one topic. */
interface OneTopicLog {
  floor(topic: string): Promise<Position>;
  positionBefore(topic: string, since: number): Promise<Position | undefined>;
  positionBeforeLast(topic: string, count: number, head: Position): Promise<Position>;
  read(
    topic: string,
    after: Position,
    maxBytes: number,
  ): EventBatch | undefined | Promise<EventBatch | undefined>;
  countAfter(topic: string, after: Position): Promise<number>;
  ageOfNext(topic: string, after: Position): Promise<number | undefined>;
}

/** Reads one topic. */
export class OneTopicReader implements TopicReader {
  constructor(
    private readonly log: OneTopicLog,
    private readonly topic: string,
  ) {}

  floor(): Promise<Position> {
    return this.log.floor(this.topic);
  }

  beginning(floor: Position): Position {
    return floor;
  }

  positionBefore(since: number): Promise<Position | undefined> {
    return this.log.positionBefore(this.topic, since);
  }

  positionBeforeLast(count: number, head: Position): Promise<Position> {
    return this.log.positionBeforeLast(this.topic, count, head);
  }

  open(): void {}

  read(
    after: Position,
    maxBytes: number,
  ): EventBatch | undefined | Promise<EventBatch | undefined> {
    return this.log.read(this.topic, after, maxBytes);
  }

  countAfter(after: Position): Promise<number> {
    return this.log.countAfter(this.topic, after);
  }

  ageOfNext(after: Position): Promise<number | undefined> {
    return this.log.ageOfNext(this.topic, after);
  }

  close(): void {}
}
