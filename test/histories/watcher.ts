import { type ServiceError, status } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Event, WatchRequest } from '../../src/gen/feed/v1/feed.js';
import { errorInfo, type FeedClient } from '../support/client.js';
import { positionOf, type SeenOfSet, type SetWatchRecord, type WatchStart } from './history.js';
import type { WatcherPlan } from './plan.js';
import { bodyOf } from './producer.js';

/** How long (milliseconds) a call of Watch that is to have a break may take. It may not get the events that it waits for. */
const BREAK_TIMEOUT = 1_500;

/** The statuses of a cancelled call and of a lost connection. The server gives all others. */
const NOT_REFUSED = new Set([status.CANCELLED, status.UNAVAILABLE]);

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/** A call of Watch of one topic or of several. */
type AnyWatchRecord = Omit<SetWatchRecord, 'topics'>;

/** When to cancel a call: after so many events, after so many milliseconds, or at the last cursor of its topics. */
interface Until {
  readonly events: number;
  readonly milliseconds: number;
  readonly isEnd: (cursor: string) => boolean;
}

/**
 * Watches as planned, call after call, each resuming where the one before ended, until the end of its topics.
 *
 * @param start where the first call begins
 * @param members the topics and patterns of the watch
 * @param isEnd tells whether a cursor is the last one of the topics, or after it
 */
export async function follow(
  plan: WatcherPlan,
  start: WatchStart,
  watcher: string,
  members: readonly string[],
  client: () => Promise<FeedClient>,
  record: (call: AnyWatchRecord) => void,
  isEnd: (cursor: string) => boolean,
): Promise<void> {
  const breaks = [...plan.breaks];
  const isOfSet = members.length > 1 || members[0].endsWith('>');
  /** A watch of several topics that began with what was held goes on past what was removed until it is here. */
  let earliest: string | undefined;
  let skips = false;
  for (;;) {
    const next = breaks.shift();
    const until = {
      events: next?.events ?? Infinity,
      milliseconds: next ? BREAK_TIMEOUT : Infinity,
      isEnd,
    };
    const call = await watch(await client(), { watcher, start, skips }, members, plan, until);
    record(call);
    if (call.seen.length > 0 && isEnd(call.seen.at(-1)!.cursor)) return;
    const beganWithHeld = start.is !== 'after' && start.is !== 'live';
    if (isOfSet && beganWithHeld) earliest = call.headers?.earliest;
    start = nextStart(call, isOfSet);
    skips =
      start.is === 'after' &&
      earliest !== undefined &&
      positionOf(start.cursor) < positionOf(earliest);
    await sleep(next?.away ?? 20);
  }
}

function nextStart(
  { start, headers, seen, refusal }: AnyWatchRecord,
  isOfSet: boolean,
): WatchStart {
  if (refusal?.earliest !== undefined) return { is: 'after', cursor: refusal.earliest };
  if (seen.length > 0) return { is: 'after', cursor: seen.at(-1)!.cursor };
  if (headers && start.is === 'live') return { is: 'after', cursor: headers.head };
  if (headers && start.is === 'earliest' && !isOfSet)
    return { is: 'after', cursor: headers.earliest };
  return start;
}

async function watch(
  client: FeedClient,
  begun: Pick<AnyWatchRecord, 'watcher' | 'start' | 'skips'>,
  members: readonly string[],
  { burst, pause, heartbeat }: WatcherPlan,
  until: Until,
): Promise<AnyWatchRecord> {
  const seen: SeenOfSet[] = [];
  const record: Mutable<AnyWatchRecord> = { ...begun, seen };
  const [only, ...others] = members;
  const call = client.Watch({
    ...(others.length > 0 ? { topics: [...members] } : { topic: only }),
    ...requestOf(begun.start, heartbeat || until.milliseconds === Infinity),
    skipRemoved: begun.skips,
  });
  call.on('metadata', (metadata) => {
    const [head, earliest] = ['feed-head', 'feed-earliest'].map((name) => metadata.get(name)[0]);
    if (head && earliest) record.headers = { head: String(head), earliest: String(earliest) };
  });
  const timer = Number.isFinite(until.milliseconds)
    ? setTimeout(() => call.cancel(), until.milliseconds)
    : undefined;
  let events = 0;
  try {
    for await (const { cursor, id, topic, body } of call as AsyncIterable<Event>) {
      seen.push({ cursor, id, topic, intact: id === '' || body === bodyOf(id) });
      if (id !== '') events++;
      if (events >= until.events || until.isEnd(cursor)) break;
      if (events % burst === 0) await sleep(pause);
    }
  } catch (error) {
    record.refusal = refusalOf(error as ServiceError);
  } finally {
    clearTimeout(timer);
    call.on('error', () => {});
    call.cancel();
  }
  return record;
}

function refusalOf({ code, message, metadata }: ServiceError): AnyWatchRecord['refusal'] {
  if (NOT_REFUSED.has(code)) return undefined;
  const info = metadata && errorInfo(metadata);
  // The server resets a stream whose end is not read within 2 s, such as that of a slow watcher in a drain that takes longer. grpc-js says it in these words.
  if (!info && code === status.RESOURCE_EXHAUSTED && message.includes('Bandwidth exhausted'))
    return undefined;
  if (!info) return { reason: message };
  return {
    reason: info.reason,
    ...(info.metadata.earliest && { earliest: info.metadata.earliest }),
  };
}

function requestOf(start: WatchStart, heartbeat: boolean): Partial<WatchRequest> {
  const request = { ...(heartbeat && { heartbeat: { seconds: 1, nanos: 0 } }) };
  if (start.is === 'after') return { ...request, afterCursor: start.cursor };
  if (start.is === 'last') return { ...request, last: start.count };
  if (start.is === 'since') {
    const seconds = Math.floor(start.time / 1_000);
    return { ...request, since: { seconds, nanos: (start.time - seconds * 1_000) * 1e6 } };
  }
  return { ...request, position: start.is === 'earliest' ? 1 : 2 };
}
