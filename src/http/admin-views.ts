import type { z } from 'zod';
import type { StatsView } from '../feed/stats.js';
import type { Step } from '../feed/recent-steps.js';
import { STEP_SECONDS } from '../feed/recent-steps.js';
import type { StreamView } from '../feed/streams.js';
import type { StoredView, TopicView } from '../feed/topics.js';
import { formatMilliseconds } from '../wire/rfc3339.js';
import { logDurabilityName } from './durability.js';
import type { OPEN_STREAM, STATS, TOPIC } from './shapes.js';

export function topicJson(view: TopicView): z.input<typeof TOPIC> {
  return {
    topic: view.topic,
    events: String(view.events),
    bytes: String(view.bytes),
    oldest: view.oldest && storedJson(view.oldest),
    newest: view.newest && storedJson(view.newest),
    watches: view.watches,
  };
}

const storedJson = ({ cursor, time }: StoredView) => ({
  cursor,
  storedAt: formatMilliseconds(time),
});

export function streamJson(view: StreamView, replica: string): z.input<typeof OPEN_STREAM> {
  return {
    id: view.id,
    method: view.method,
    principal: view.principal ?? '',
    peer: view.peer,
    topics: [...view.topics],
    startedAt: formatMilliseconds(view.startedAt),
    events: String(view.events),
    bytes: String(view.bytes),
    behind: view.behind === undefined ? undefined : String(view.behind),
    replica,
  };
}

export function statsJson(
  view: StatsView,
  { replica, version }: { replica: string; version: string },
): z.input<typeof STATS> {
  const { engine, durability, state, startedAt, steps, oldest, newest, ...now } = view;
  return {
    replica,
    version,
    engine,
    durability: logDurabilityName(durability),
    state,
    startedAt: formatMilliseconds(Math.round(startedAt)),
    now: {
      ...now,
      logBytes: now.logBytes ?? null,
      diskFreeBytes: now.diskFreeBytes ?? null,
      oldest: oldest ? storedJson(oldest) : null,
      newest: newest ? storedJson(newest) : null,
    },
    stepSeconds: STEP_SECONDS,
    steps: columnsOf(steps),
  };
}

/** Returns the values of all steps by their names, because a plot takes them so. */
function columnsOf(steps: readonly Step[]): z.input<typeof STATS>['steps'] {
  const known = <K extends keyof Step>(name: K) => steps.map((step) => step[name]!);
  const orNull = (name: keyof Step) => steps.map((step) => step[name] ?? null);
  return {
    at: known('at'),
    eventsIn: known('eventsIn'),
    bytesIn: known('bytesIn'),
    eventsOut: known('eventsOut'),
    bytesOut: known('bytesOut'),
    duplicates: known('duplicates'),
    messages: known('messages'),
    watches: known('watches'),
    uploads: known('uploads'),
    chats: known('chats'),
    logBytes: orNull('logBytes'),
    ackP50: orNull('ackP50'),
    ackP99: orNull('ackP99'),
    deliveryP50: orNull('deliveryP50'),
    deliveryP99: orNull('deliveryP99'),
  };
}
