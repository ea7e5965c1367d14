import type { status } from '@grpc/grpc-js';
import { parseCursor, type Position } from '../../src/wire/cursor.js';

/** What producers and watchers of some topics did and saw: plain data, in the words of the contract. */
export interface History {
  readonly uploads: readonly UploadRecord[];
  readonly watches: readonly WatchRecord[];
  /** Whether events may have been removed. */
  readonly retention: boolean;
}

/** One call of UploadEvents. */
export interface UploadRecord {
  readonly producer: string;
  /** What was sent, in order. */
  readonly events: readonly { readonly topic: string; readonly id: string }[];
  readonly result:
    | { readonly is: 'stored'; readonly received: number; readonly duplicates: number }
    | { readonly is: 'failed'; readonly received: number; readonly reason: string }
    /** Cancelled, or broken: any prefix may be stored. The code is gRPC's. */
    | { readonly is: 'unknown'; readonly code: status };
  /** Of the last event, where all are stored. */
  readonly lastCursor: string;
  /** Between these times, milliseconds of the machine's clock. */
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
  /** Events and heartbeats, as they came. */
  readonly seen: readonly Seen[];
  /** How it ended, where that was not the watcher's own doing or a lost connection. */
  readonly refusal?: { readonly reason: string; readonly earliest?: string };
}

export type WatchStart =
  | { readonly is: 'live' | 'earliest' }
  | { readonly is: 'after'; readonly cursor: string }
  /** Milliseconds of the machine's clock. */
  | { readonly is: 'since'; readonly time: number }
  | { readonly is: 'last'; readonly count: number };

export interface Seen {
  readonly cursor: string;
  /** Empty for a heartbeat. */
  readonly id: string;
  /** Whether it had the topic and body that it was uploaded with. */
  readonly intact: boolean;
}

export function positionOf(cursor: string): Position {
  const parsed = parseCursor(cursor);
  if (!parsed) throw new Error(`no cursor: ${JSON.stringify(cursor)}`);
  return parsed.position;
}

/** After which position a watch had to begin; undefined where that is not for sure. */
export function startOf({ start, headers, seen }: WatchRecord): Position | undefined {
  if (start.is === 'after') return positionOf(start.cursor);
  if (start.is === 'live') return headers && positionOf(headers.head);
  if (start.is === 'earliest') return headers && positionOf(headers.earliest);
  const first = seen.find(({ id }) => id !== '');
  return first ? positionOf(first.cursor) - 1 : undefined;
}

/** Where the watcher stands after it: nothing up to there is still to come. */
export function endOf(watch: WatchRecord): Position | undefined {
  const last = watch.seen.at(-1);
  return last ? positionOf(last.cursor) : startOf(watch);
}

/** The calls of each watcher, in order. */
export function watchers({ watches }: History): WatchRecord[][] {
  return Object.values(Object.groupBy(watches, ({ watcher }) => watcher)) as WatchRecord[][];
}

export interface Known {
  readonly position: Position;
  readonly id: string;
}

/** All events that any watch saw, by topic, in their order. */
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
