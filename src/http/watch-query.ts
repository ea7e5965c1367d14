import type { IncomingMessage } from 'node:http';
import type { z } from 'zod';
import { FeedError } from '../feed/errors.js';
import { StartPosition } from '../gen/feed/v1/feed.js';
import { parseTime } from '../wire/rfc3339.js';
import { MAX_TOPICS, type Time, type WatchRequest } from '../wire/watch-request.js';
import { type EventFormat, JSON_LINES, SERVER_SENT_EVENTS } from './event-format.js';
import { WATCH_QUERY } from './queries.js';
import { readQuery } from './query.js';

/** A watch over HTTP has a sign of life after this many seconds, unless its query says otherwise. */
const USUAL_HEARTBEAT = { seconds: 15, nanos: 0 };

/** Express adds `accepts` to each request: it returns the type that the header `Accept` prefers, or false for none of them. */
type ExpressRequest = IncomingMessage & {
  accepts(types: readonly string[]): string | false;
};

/** The content types of a watch, the usual one first. For Express, a type with a parameter is another type. */
const OFFERED = [SERVER_SENT_EVENTS, JSON_LINES].flatMap(({ contentType }) => [
  contentType,
  `${contentType};charset=utf-8`,
]);

/** Returns the format that a request prefers, and Server-Sent Events if it prefers neither or accepts none. */
export function formatOf(request: IncomingMessage): EventFormat {
  const type = (request as ExpressRequest).accepts(OFFERED);
  return type !== false && type.startsWith(JSON_LINES.contentType)
    ? JSON_LINES
    : SERVER_SENT_EVENTS;
}

/** Returns the cursor after which a browser goes on, which it says when it connects again; empty for the first time. */
export function lastEventId({ headers }: IncomingMessage): string {
  const id = headers['last-event-id'];
  return typeof id === 'string' ? id : '';
}

/**
 * Reads the request of a watch. Its use case checks topics and cursor.
 *
 * @throws FeedError REQUEST_INVALID, START_INVALID or HEARTBEAT_INVALID
 */
export function readWatchQuery(request: IncomingMessage): WatchRequest {
  const { topic: topics, heartbeat, skipRemoved, ...starts } = readQuery(request, WATCH_QUERY);
  const given = Object.entries(starts).filter(([, value]) => value !== undefined);
  if (given.length > 1)
    throw new FeedError(
      'REQUEST_INVALID',
      `the query: ${given.map(([name]) => name).join(' and ')} both say where to start`,
    );
  const isQuiet = formatOf(request) === JSON_LINES;
  const usual = isQuiet ? undefined : USUAL_HEARTBEAT;
  const again = lastEventId(request);
  return {
    // One more than a watch may have, so that its use case refuses too many as it does over gRPC.
    topics: topics.slice(0, MAX_TOPICS + 1),
    skipRemoved: skipRemoved === 'true',
    ...(again === '' ? startOf(starts) : { afterCursor: again }),
    heartbeat: heartbeat === undefined ? usual : readDuration(heartbeat),
  };
}

type Starts = Pick<z.output<typeof WATCH_QUERY>, 'after' | 'from' | 'since' | 'last'>;

function startOf({ after, from, since, last }: Starts): Partial<WatchRequest> {
  if (after !== undefined) return { afterCursor: after };
  if (last !== undefined) return { last: Number(last) };
  if (from === 'earliest') return { position: StartPosition.START_POSITION_EARLIEST };
  if (since === undefined) return {};
  const time = parseTime(since);
  if (time) return { since: time };
  throw new FeedError(
    'START_INVALID',
    'since must be a time of RFC 3339, such as 2026-01-31T09:00:00Z, in which + is written %2B',
  );
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

function readDuration(text: string): Time {
  const [, digits, unit] = /^(\d{1,9})(ms|s|m|h)$/.exec(text) ?? [];
  if (digits === undefined)
    throw new FeedError(
      'HEARTBEAT_INVALID',
      'heartbeat must be a whole number with a unit (ms, s, m, h), such as 15s',
    );
  const milliseconds = Number(digits) * UNITS[unit];
  return { seconds: Math.floor(milliseconds / 1_000), nanos: (milliseconds % 1_000) * 1e6 };
}
