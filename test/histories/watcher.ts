import { type ServiceError, status } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Event, WatchRequest } from '../../src/gen/feed/v1/feed.js';
import { errorInfo, type FeedClient } from '../support/client.js';
import type { Seen, WatchRecord, WatchStart } from './history.js';
import type { WatcherPlan } from './plan.js';
import { bodyOf } from './producer.js';

/** How long (milliseconds) a call of Watch that is to have a break may take. It may not get the events that it waits for. */
const BREAK_TIMEOUT = 1_500;

/** The statuses of a cancelled call and of a lost connection. The server gives all others. */
const NOT_REFUSED = new Set([status.CANCELLED, status.UNAVAILABLE]);

type Names = Pick<WatchRecord, 'watcher' | 'topic'>;
type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/** When to cancel a call: after so many events, after so many milliseconds, or at the topic's last cursor. */
interface Until {
  readonly events: number;
  readonly milliseconds: number;
  readonly isEnd: (cursor: string) => boolean;
}

/**
 * Watches as planned, call after call, each resuming where the one before ended, until the end of the topic.
 *
 * @param start where the first call begins
 * @param isEnd tells whether a cursor is the topic's last one or after it
 */
export async function follow(
  plan: WatcherPlan,
  start: WatchStart,
  names: Names,
  client: () => Promise<FeedClient>,
  record: (call: WatchRecord) => void,
  isEnd: (cursor: string) => boolean,
): Promise<void> {
  const breaks = [...plan.breaks];
  for (;;) {
    const next = breaks.shift();
    const until = {
      events: next?.events ?? Infinity,
      milliseconds: next ? BREAK_TIMEOUT : Infinity,
      isEnd,
    };
    const call = await watch(await client(), { ...names, start }, plan, until);
    record(call);
    if (call.seen.length > 0 && isEnd(call.seen.at(-1)!.cursor)) return;
    start = nextStart(call);
    await sleep(next?.away ?? 20);
  }
}

function nextStart({ start, headers, seen, refusal }: WatchRecord): WatchStart {
  if (refusal?.earliest !== undefined) return { is: 'after', cursor: refusal.earliest };
  if (seen.length > 0) return { is: 'after', cursor: seen.at(-1)!.cursor };
  if (headers && start.is === 'live') return { is: 'after', cursor: headers.head };
  if (headers && start.is === 'earliest') return { is: 'after', cursor: headers.earliest };
  return start;
}

async function watch(
  client: FeedClient,
  begun: Pick<WatchRecord, 'watcher' | 'topic' | 'start'>,
  { burst, pause, heartbeat }: WatcherPlan,
  until: Until,
): Promise<WatchRecord> {
  const seen: Seen[] = [];
  const record: Mutable<WatchRecord> = { ...begun, seen };
  const call = client.Watch(
    requestOf(begun.topic, begun.start, heartbeat || until.milliseconds === Infinity),
  );
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
      const intact = topic === begun.topic && (id === '' || body === bodyOf(id));
      seen.push({ cursor, id, intact });
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

function refusalOf({ code, message, metadata }: ServiceError): WatchRecord['refusal'] {
  if (NOT_REFUSED.has(code)) return undefined;
  const info = metadata && errorInfo(metadata);
  if (!info) return { reason: message };
  return {
    reason: info.reason,
    ...(info.metadata.earliest && { earliest: info.metadata.earliest }),
  };
}

function requestOf(topic: string, start: WatchStart, heartbeat: boolean): Partial<WatchRequest> {
  const request = { topic, ...(heartbeat && { heartbeat: { seconds: 1, nanos: 0 } }) };
  if (start.is === 'after') return { ...request, afterCursor: start.cursor };
  if (start.is === 'last') return { ...request, last: start.count };
  if (start.is === 'since') {
    const seconds = Math.floor(start.time / 1_000);
    return { ...request, since: { seconds, nanos: (start.time - seconds * 1_000) * 1e6 } };
  }
  return { ...request, position: start.is === 'earliest' ? 1 : 2 };
}
