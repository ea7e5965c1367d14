import type { Position } from '../wire/cursor.js';
import type { EventBatch } from '../wire/event-batch.js';
import type { EventRepository } from './event-repository.js';

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

  /** Returns a position before all events that are held, to read all of them after. */
  beginning(): Promise<Position>;

  positionBefore(since: number): Promise<Position | undefined>;

  positionBeforeLast(count: number, head: Position): Promise<Position>;

  /** To be called before read(). Events up to `mayLack` may be missing; those after it may not. */
  open(mayLack: Position): void;

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

/** Reads one topic. */
export class OneTopicReader implements TopicReader {
  constructor(
    private readonly repository: EventRepository,
    private readonly topic: string,
  ) {}

  floor(): Promise<Position> {
    return this.repository.floor(this.topic);
  }

  beginning(): Promise<Position> {
    return this.repository.floor(this.topic);
  }

  positionBefore(since: number): Promise<Position | undefined> {
    return this.repository.positionBefore(this.topic, since);
  }

  positionBeforeLast(count: number, head: Position): Promise<Position> {
    return this.repository.positionBeforeLast(this.topic, count, head);
  }

  open(): void {}

  read(
    after: Position,
    maxBytes: number,
  ): EventBatch | undefined | Promise<EventBatch | undefined> {
    return this.repository.read(this.topic, after, maxBytes);
  }

  countAfter(after: Position): Promise<number> {
    return this.repository.countAfter(this.topic, after);
  }

  ageOfNext(after: Position): Promise<number | undefined> {
    return this.repository.ageOfNext(this.topic, after);
  }

  close(): void {}
}
