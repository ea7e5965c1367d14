import type { EventRepository } from '../../src/repository/event-repository.js';
import { formatCursor, parseCursor, type Position } from '../../src/wire/cursor.js';
import { eventsIn } from '../wire/events.js';

/** An event as a reader saw it. */
export interface Seen {
  readonly id: string;
  readonly position: Position;
  readonly cursor: string;
  readonly body: string;
}

/**
 * Reads the next batch of a topic, and throws if it breaks what holds for every batch: it is not empty, it is durable, its
 * positions rise, and its cursors, count and last position are right.
 */
export async function next(
  repository: EventRepository,
  topic: string,
  after: Position,
  maxBytes: number,
): Promise<Seen[] | undefined> {
  const batch = await repository.read(topic, after, maxBytes);
  if (!batch) return undefined;
  const events = eventsIn(batch.bytes).map((event) => {
    const cursor = parseCursor(event.cursor);
    if (!cursor) throw new Error(`${event.cursor} is not a cursor`);
    const { position } = cursor;
    if (event.topic !== topic) throw new Error(`an event of ${event.topic} was read from ${topic}`);
    if (position > repository.head) throw new Error(`${position} was read before it was durable`);
    if (formatCursor(repository.cursorAt(position)) !== event.cursor) {
      throw new Error(`the event at ${position} has the cursor ${event.cursor}`);
    }
    return { id: event.id, position, cursor: event.cursor, body: event.body };
  });
  if (events.length === 0) throw new Error('a batch is empty');
  if (events.length !== batch.count) throw new Error(`${events.length} events, not ${batch.count}`);
  if (events.at(-1)!.position !== batch.last) throw new Error(`it does not end at ${batch.last}`);
  let before = after;
  for (const { position } of events) {
    if (position <= before) throw new Error(`${position} was read after ${before}`);
    before = position;
  }
  return events;
}

/** Reads all events of a topic after a position, batch after batch as a watch does. */
export async function readAll(
  repository: EventRepository,
  topic: string,
  after: Position = 0,
  maxBytes = 64 * 1024,
): Promise<Seen[]> {
  const seen: Seen[] = [];
  for (;;) {
    const events = await next(repository, topic, seen.at(-1)?.position ?? after, maxBytes);
    if (!events) return seen;
    seen.push(...events);
  }
}

/** Wakes the readers of each topic of each commit, as the service's bell does. */
export class Bell {
  private waiting: { topic: string; wake: () => void }[] = [];

  constructor(repository: EventRepository) {
    repository.onDurable((topics) => {
      const rung = new Set(topics);
      const woken = this.waiting.filter(({ topic }) => rung.has(topic));
      this.waiting = this.waiting.filter(({ topic }) => !rung.has(topic));
      for (const { wake } of woken) wake();
    });
  }

  /** Resolves at the topic's next commit. */
  next(topic: string): Promise<void> {
    return new Promise((resolve) => this.waiting.push({ topic, wake: resolve }));
  }
}

export const ids = (events: readonly { id: string }[]): string[] => events.map(({ id }) => id);
