import { StartPosition } from '../gen/feed/v1/feed.js';
import type { EventRepository } from '../repository/event-repository.js';
import { formatCursor, parseCursor, type Position } from '../wire/cursor.js';
import { MAX_NANOS, MAX_SECONDS, MIN_SECONDS } from '../wire/timestamp.js';
import { topicProblem } from '../wire/topic.js';
import type { Time, WatchRequest } from '../wire/watch-request.js';
import { type Caller, requirePermission } from './caller.js';
import { FeedError } from './errors.js';

/** Cursors to resume after: just before the topic's oldest event that is held, and at the end of the log. */
interface Bounds {
  readonly [key: string]: string;
  readonly earliest: string;
  readonly head: string;
}

export interface WatchStart {
  /** The watch reads events strictly after this. */
  readonly after: Position;
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
 * @throws FeedError
 */
export async function watchStart(
  repository: EventRepository,
  request: WatchRequest,
  caller: Caller,
): Promise<WatchStart> {
  const { topic, afterCursor } = request;
  const problem = topicProblem(topic);
  if (problem !== undefined) throw new FeedError('TOPIC_INVALID', `topic: ${problem}`);
  requirePermission(caller, 'watch', topic);
  const heartbeat = heartbeatOf(request);

  // So that the start is exact on every replica, and a cursor that another one has just given out is known.
  const behind = repository.catchUp(afterCursor ? parseCursor(afterCursor) : undefined);
  if (behind) await behind;
  const { head, history } = repository;
  const floor = await repository.floor(topic);
  const bounds = boundsAt(repository, floor, head);
  const after = await startOf(repository, request, head, floor, bounds);
  return { after, history, ...bounds, heartbeat };
}

async function startOf(
  repository: EventRepository,
  { topic, afterCursor, position, since, last }: WatchRequest,
  head: Position,
  floor: Position,
  bounds: Bounds,
): Promise<Position> {
  if (afterCursor) return afterCursorOf(repository, afterCursor, floor, bounds);
  if (since) {
    const time = millisecondsOf(since);
    return time > Date.now() ? head : ((await repository.positionBefore(topic, time)) ?? head);
  }
  if (last) return repository.positionBeforeLast(topic, last, head);
  switch (position ?? StartPosition.START_POSITION_UNSPECIFIED) {
    case StartPosition.START_POSITION_EARLIEST:
      return floor;
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
      'after_cursor is not a cursor of this service: send one as it was received',
    );
  }
  switch (repository.locate(cursor)) {
    case 'other-epoch':
      throw epochChanged(bounds);
    case 'ahead':
      throw new FeedError('CURSOR_AHEAD', 'after_cursor is ahead of the log', {
        head: bounds.head,
      });
    case 'in-log':
      if (cursor.position >= floor) return cursor.position;
      throw expired(bounds);
  }
}

export async function boundsOf(repository: EventRepository, topic: string): Promise<Bounds> {
  return boundsAt(repository, await repository.floor(topic), repository.head);
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
    'the cursor is of a history that this log does not have: it was lost, or restored from a copy. ' +
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
