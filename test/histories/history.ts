import type { status } from '@grpc/grpc-js';
import { parseCursor, type Position } from '../../src/wire/cursor.js';

/** A record of what producers and watchers of some topics did and saw. */
export interface History {
  readonly uploads: readonly UploadRecord[];
  readonly watches: readonly WatchRecord[];
  /** Those of several topics, which only the validator `sets` looks at. */
  readonly setWatches: readonly SetWatchRecord[];
  /** True when retention may have removed events. */
  readonly retention: boolean;
  /**
   * True on the jetstream engine. With retention, it promises less (docs/protocol.md, "Several replicas", 13 and 15): a
   * replica that did not get an event before it was removed does not know its id, and takes a topic of which nothing is held
   * for one that lost events.
   */
  readonly isReplicated: boolean;
}

/** One call of UploadEvents. */
export interface UploadRecord {
  readonly producer: string;
  /** The events that were sent, in order. */
  readonly events: readonly { readonly topic: string; readonly id: string }[];
  readonly result:
    | { readonly is: 'stored'; readonly received: number; readonly duplicates: number }
    | { readonly is: 'failed'; readonly received: number; readonly reason: string }
    /** The call was cancelled or broke, so that any prefix of its events may be stored. */
    | { readonly is: 'unknown'; readonly code: status };
  /** The cursor of the last event if all are stored, else ''. */
  readonly lastCursor: string;
  /** When the call began and ended, in milliseconds of the machine's clock. */
  readonly begun: number;
  readonly ended: number;
}

/** One call of Watch. */
export interface WatchRecord {
  readonly watcher: string;
  readonly topic: string;
  readonly start: WatchStart;
  /** The response headers, if they came. */
  readonly headers?: { readonly head: string; readonly earliest: string };
  /** The events and heartbeats, in the order in which they came. */
  readonly seen: readonly Seen[];
  /** The reason with which the server ended the watch. A cancel by the watcher, a lost connection and a reset leave it out. */
  readonly refusal?: { readonly reason: string; readonly earliest?: string };
}

/** One call of Watch of several topics. */
export interface SetWatchRecord extends Omit<WatchRecord, 'topic'> {
  /** The topics of the history that it is to get. */
  readonly topics: readonly string[];
  readonly seen: readonly SeenOfSet[];
  /** True if it began after a cursor, and asked to pass over what was removed. */
  readonly skips: boolean;
}

export type WatchStart =
  | { readonly is: 'live' | 'earliest' }
  | { readonly is: 'after'; readonly cursor: string }
  /** `time` is in milliseconds of the machine's clock. */
  | { readonly is: 'since'; readonly time: number }
  | { readonly is: 'last'; readonly count: number };

export interface Seen {
  readonly cursor: string;
  /** Empty for a heartbeat. */
  readonly id: string;
  /** True when it had the topic and body that it was uploaded with. */
  readonly intact: boolean;
}

export interface SeenOfSet extends Seen {
  readonly topic: string;
}

export function positionOf(cursor: string): Position {
  const parsed = parseCursor(cursor);
  if (!parsed) throw new Error(`no cursor: ${JSON.stringify(cursor)}`);
  return parsed.position;
}

/** Returns the position after which a watch had to begin, or undefined where that can't be known. */
export function startOf({ start, headers, seen }: WatchRecord): Position | undefined {
  if (start.is === 'after') return positionOf(start.cursor);
  if (start.is === 'live') return headers && positionOf(headers.head);
  if (start.is === 'earliest') return headers && positionOf(headers.earliest);
  const first = seen.find(({ id }) => id !== '');
  return first ? positionOf(first.cursor) - 1 : undefined;
}

/** Returns the watcher's position after a watch: it needs no event up to there any more. */
export function endOf(watch: WatchRecord): Position | undefined {
  const last = watch.seen.at(-1);
  return last ? positionOf(last.cursor) : startOf(watch);
}

/** Returns the calls of each watcher, in order. */
export function watchers({ watches }: History): WatchRecord[][] {
  return Object.values(Object.groupBy(watches, ({ watcher }) => watcher)) as WatchRecord[][];
}

export interface Known {
  readonly position: Position;
  readonly id: string;
}

/** Returns all events that any watch saw, by topic, in the order of their positions. */
export function knownEvents({ watches }: History): Map<string, Known[]> {
  const topics = new Map<string, Map<Position, string>>();
  for (const { topic, seen } of watches) {
    const events = topics.get(topic) ?? new Map<Position, string>();
    topics.set(topic, events);
    for (const { cursor, id } of seen) if (id !== '') events.set(positionOf(cursor), id);
  }
  return new Map(
    [...topics].map(([topic, events]) => [
      topic,
      [...events]
        .map(([position, id]) => ({ position, id }))
        .toSorted((a, b) => a.position - b.position),
    ]),
  );
}
