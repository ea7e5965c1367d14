import { StartPosition } from '../gen/feed/v1/feed.js';
import type { EventRepository } from '../repository/event-repository.js';
import type { TopicReader } from '../repository/topic-reader.js';
import { formatCursor, parseCursor, type Position } from '../wire/cursor.js';
import { MAX_NANOS, MAX_SECONDS, MIN_SECONDS } from '../wire/timestamp.js';
import {
  isPattern,
  MAX_PATTERN_TOKENS,
  parsePattern,
  patternProblem,
} from '../wire/topic-pattern.js';
import { TopicSet } from '../wire/topic-set.js';
import { topicProblem } from '../wire/topic.js';
import { MAX_TOPICS, type Time, type WatchRequest } from '../wire/watch-request.js';
import { type Caller, requirePermission } from './caller.js';
import { FeedError } from './errors.js';

/** Cursors to resume after: from where on all events of the topics are held, and at the end of the log. */
interface Bounds {
  readonly [key: string]: string;
  readonly earliest: string;
  readonly head: string;
}

export interface WatchStart {
  /** Reads the topics of the watch. It is not open yet. */
  readonly reader: TopicReader;
  /** The watch reads events strictly after this. */
  readonly after: Position;
  /** Events up to this may be missing. If one after it was removed before it was read, the watch ends. */
  readonly mayLackUpTo: Position;
  /** EventRepository.history, to which `after` belongs. */
  readonly history: number;
  readonly head: string;
  readonly earliest: string;
  /** The interval of heartbeats in milliseconds; 0 for none. */
  readonly heartbeat: number;
}

const MIN_HEARTBEAT = 1_000;
const MAX_TIMER = 2 ** 31 - 1;

/**
 * Checks a request and finds where its watch starts.
 *
 * @param signal aborts when nobody waits for the watch any more: then it may throw the signal's reason
 * @throws FeedError
 */
export async function watchStart(
  repository: EventRepository,
  request: WatchRequest,
  caller: Caller,
  signal?: AbortSignal,
): Promise<WatchStart> {
  const topics = topicsOf(request, caller);
  const heartbeat = heartbeatOf(request);
  const { afterCursor } = request;

  // A replica may be behind the one that stored an event or gave the cursor out.
  const catchingUp = repository.catchUp(afterCursor ? parseCursor(afterCursor) : undefined);
  if (catchingUp) await catchingUp;
  const { history } = repository;
  const reader = repository.readerOf(topics);
  const floor = await reader.floor();
  // A live watch begins at the head, after which nothing may be gone already. Another replica may have removed newer events.
  const head = Math.max(repository.head, floor);
  const bounds = boundsAt(repository, floor, head);
  const after = await startOf(repository, reader, request, head, floor, bounds, signal);
  // A start without a cursor is where some topic holds events. Another one may have lost newer ones, up to the floor.
  const mayLackUpTo = afterCursor && !request.skipRemoved ? 0 : floor;
  return { reader, after, mayLackUpTo, history, ...bounds, heartbeat };
}

/** Checks the topics and patterns of a request. @throws FeedError */
function topicsOf({ topics }: WatchRequest, caller: Caller): TopicSet {
  if (topics.length > MAX_TOPICS)
    throw new FeedError('TOPIC_INVALID', `the watch has more than ${MAX_TOPICS} topics`, {
      most: String(MAX_TOPICS),
    });
  const seen = new Set<string>();
  for (const [i, topic] of topics.entries()) {
    const problem = seen.has(topic) ? 'it is listed twice' : problemOf(topic);
    const which = topics.length === 1 ? 'topic' : `topic ${i + 1} of ${topics.length}`;
    if (problem !== undefined)
      throw new FeedError('TOPIC_INVALID', `${which}: ${problem}`, { index: String(i) });
    seen.add(topic);
    requirePermission(caller, 'watch', topic);
  }
  return new TopicSet(topics);
}

/** Returns what is wrong with a topic or a pattern, or undefined if a watch may have it. */
function problemOf(topic: string): string | undefined {
  if (!isPattern(topic)) return topicProblem(topic);
  const problem = patternProblem(topic);
  if (problem !== undefined || parsePattern(topic).length <= MAX_PATTERN_TOKENS) return problem;
  return `a pattern has at most ${MAX_PATTERN_TOKENS} tokens: end it with ">", or name its topics`;
}

async function startOf(
  repository: EventRepository,
  reader: TopicReader,
  { afterCursor, position, since, last, skipRemoved }: WatchRequest,
  head: Position,
  floor: Position,
  bounds: Bounds,
  signal: AbortSignal | undefined,
): Promise<Position> {
  if (afterCursor) {
    const after = afterCursorOf(repository, afterCursor, floor, bounds);
    if (after >= floor) return after;
    if (!skipRemoved) throw expired(bounds);
    return Math.max(after, reader.beginning(floor));
  }
  if (since) {
    return (await reader.positionBefore(millisecondsOf(since))) ?? head;
  }
  if (last) return reader.positionBeforeLast(last, head, signal);
  switch (position ?? StartPosition.START_POSITION_UNSPECIFIED) {
    case StartPosition.START_POSITION_EARLIEST:
      return reader.beginning(floor);
    case StartPosition.START_POSITION_LIVE:
    case StartPosition.START_POSITION_UNSPECIFIED:
      return head;
    default:
      throw new FeedError('START_INVALID', `position ${position} is not one of this version's`);
  }
}

function afterCursorOf(
  repository: EventRepository,
  text: string,
  floor: Position,
  bounds: Bounds,
): Position {
  const cursor = parseCursor(text);
  if (!cursor) {
    throw new FeedError(
      'CURSOR_INVALID',
      'the cursor to resume after is not a cursor of this service: send one as it was received',
    );
  }
  switch (repository.locate(cursor)) {
    case 'other-epoch':
      throw epochChanged(bounds);
    case 'ahead':
      throw new FeedError('CURSOR_AHEAD', 'the cursor to resume after is ahead of the log', {
        head: bounds.head,
      });
    case 'forgotten-epoch':
      // If it is of this log, its client may lack removed events. If it is of another one, it does, and so learns of them, too.
      if (floor === 0 || cursor.position > floor) throw epochChanged(bounds);
      return Math.min(cursor.position, floor - 1);
    case 'in-log':
      return cursor.position;
  }
}

export async function boundsOf(repository: EventRepository, reader: TopicReader): Promise<Bounds> {
  return boundsAt(repository, await reader.floor(), repository.head);
}

function boundsAt(repository: EventRepository, floor: Position, head: Position): Bounds {
  return {
    earliest: formatCursor(repository.cursorAt(floor)),
    head: formatCursor(repository.cursorAt(head)),
  };
}

/** Returns the error of a watch whose position is in a history that this log does not have. */
export function epochChanged(bounds: Bounds): FeedError {
  return new FeedError(
    'EPOCH_CHANGED',
    'the cursor is of a history that this log does not have: it is of another log, or this one was lost or restored from a copy. ' +
      'Start again from earliest or head',
    bounds,
  );
}

/** Returns the error of a watch whose next events retention has removed. */
export function expired(bounds: Bounds): FeedError {
  return new FeedError(
    'CURSOR_EXPIRED',
    'the events after this cursor are no longer held: go on from earliest, knowing that there is a gap',
    bounds,
  );
}

function millisecondsOf({ seconds, nanos }: Time): number {
  const inRange =
    seconds >= MIN_SECONDS && seconds <= MAX_SECONDS && nanos >= 0 && nanos <= MAX_NANOS;
  if (!inRange) throw new FeedError('START_INVALID', 'since is out of the range of a Timestamp');
  return seconds * 1000 + Math.ceil(nanos / 1e6);
}

function heartbeatOf({ heartbeat }: WatchRequest): number {
  if (!heartbeat) return 0;
  const { seconds, nanos } = heartbeat;
  const milliseconds = seconds * 1000 + nanos / 1e6;
  if (nanos < 0 || nanos > MAX_NANOS || !(milliseconds >= MIN_HEARTBEAT)) {
    throw new FeedError(
      'HEARTBEAT_INVALID',
      `heartbeat must be at least ${MIN_HEARTBEAT / 1000} s`,
    );
  }
  return Math.min(milliseconds, MAX_TIMER);
}
