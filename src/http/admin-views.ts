import type { z } from 'zod';
import type { StatsView } from '../feed/stats.js';
import type { Step } from '../feed/recent-steps.js';
import { STEP_SECONDS } from '../feed/recent-steps.js';
import type { StreamView } from '../feed/streams.js';
import type { StoredView, TopicView } from '../feed/topics.js';
import { formatMilliseconds } from '../wire/rfc3339.js';
import type { OPEN_STREAM, STATS, TOPIC } from './shapes.js';

/** What operators see, as answers have it. */
export function topicJson({
  oldest,
  newest,
  events,
  bytes,
  ...view
}: TopicView): z.input<typeof TOPIC> {
  const [eventsText, bytesText] = [String(events), String(bytes)];
  return {
    topic: view.topic,
    events: eventsText,
    bytes: bytesText,
    oldest: oldest && storedJson(oldest),
    newest: newest && storedJson(newest),
    watches: view.watches,
  };
}

const storedJson = ({ cursor, time }: StoredView) => ({
  cursor,
  storedAt: formatMilliseconds(time),
});

export function streamJson(
  { principal = '', topics, startedAt, events, bytes, behind, ...view }: StreamView,
  replica: string,
): z.input<typeof OPEN_STREAM> {
  return {
    id: view.id,
    method: view.method,
    principal,
    peer: view.peer,
    topics: [...topics],
    startedAt: formatMilliseconds(startedAt),
    events: String(events),
    bytes: String(bytes),
    behind: behind === undefined ? undefined : String(behind),
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
    durability: DURABILITY[durability],
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

const DURABILITY = {
  memory: 'DURABILITY_MEMORY',
  fsync: 'DURABILITY_FSYNC',
  replicated: 'DURABILITY_REPLICATED',
} as const;

/** A plot takes its values by columns. */
function columnsOf(steps: readonly Step[]): z.input<typeof STATS>['steps'] {
  const known = <K extends keyof Step>(name: K) => steps.map((step) => step[name]!);
  const perhaps = (name: keyof Step) => steps.map((step) => step[name] ?? null);
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
    logBytes: perhaps('logBytes'),
    ackP50: perhaps('ackP50'),
    ackP99: perhaps('ackP99'),
    deliveryP50: perhaps('deliveryP50'),
    deliveryP99: perhaps('deliveryP99'),
  };
}
