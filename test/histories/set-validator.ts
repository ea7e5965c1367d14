import {
  endOf,
  type History,
  type Known,
  knownEvents,
  positionOf,
  type SeenOfSet,
  type SetWatchRecord,
} from './history.js';

/**
 * A watch of several topics gets each event of all of them once, in the order of the log, from its start to the last event that it
 * got. What may be missing was removed before its start, and stands before what its headers say.
 */
export function sets(history: History): string[] {
  const known = knownEvents(history);
  return history.setWatches.flatMap((call) => {
    const events = call.topics
      .flatMap((topic) => (known.get(topic) ?? []).map((event) => ({ ...event, topic })))
      .toSorted((a, b) => a.position - b.position);
    return [
      ...order(call),
      ...contents(call, events),
      ...newest(call, events, history.retention),
      ...refusals(call, history.retention),
    ];
  });
}

function order({ watcher, topics, seen }: SetWatchRecord): string[] {
  const breaches: string[] = [];
  let before = -1;
  for (const { cursor, id, topic, intact } of seen) {
    const position = positionOf(cursor);
    if (position < before || (position === before && id !== ''))
      breaches.push(`${watcher} got ${id || 'a heartbeat'} at ${position} after ${before}`);
    before = position;
    if (id !== '' && (!intact || !topics.includes(topic)))
      breaches.push(`${watcher} got ${topic} ${id} with another body, or did not ask for it`);
  }
  return breaches;
}

function contents(call: SetWatchRecord, events: readonly (Known & { topic: string })[]): string[] {
  const { watcher, seen } = call;
  const got = new Map(eventsOf(call).map((one) => [positionOf(one.cursor), one]));
  const { start, completeAfter } = startOf(call);
  if (start === undefined || completeAfter === undefined) return [];
  const end = seen.length > 0 ? positionOf(seen.at(-1)!.cursor) : start;
  const early = [...got.keys()].filter((position) => position <= start);
  const wrong = events.filter(({ position, id, topic }) => {
    const one = got.get(position);
    return one ? one.id !== id || one.topic !== topic : position > completeAfter && position <= end;
  });
  return [
    ...early.map((position) => `${watcher} got ${position}, which stands before its start`),
    ...wrong.map(({ topic, id, position }) => `${watcher} misses ${topic} ${id} at ${position}`),
  ];
}

/** Returns after which position its events come, and after which none may be missing; undefined where that can't be known. */
function startOf(call: SetWatchRecord): { start?: number; completeAfter?: number } {
  const { start, headers, skips } = call;
  const earliest = headers && positionOf(headers.earliest);
  if (start.is === 'live') {
    const head = headers && positionOf(headers.head);
    return { start: head, completeAfter: head };
  }
  if (start.is === 'after') {
    const cursor = positionOf(start.cursor);
    if (!skips) return { start: cursor, completeAfter: cursor };
    return {
      start: cursor,
      completeAfter: earliest === undefined ? undefined : Math.max(cursor, earliest),
    };
  }
  if (start.is === 'earliest') return { start: 0, completeAfter: earliest };
  const [first] = eventsOf(call);
  if (!first || earliest === undefined) return {};
  const before = positionOf(first.cursor) - 1;
  return { start: before, completeAfter: Math.max(before, earliest) };
}

/** The newest n are counted over all its topics. */
function newest(call: SetWatchRecord, events: readonly Known[], retention: boolean): string[] {
  const { watcher, start, headers } = call;
  const [first] = eventsOf(call);
  if (start.is !== 'last' || !headers || !first || retention) return [];
  const head = positionOf(headers.head);
  const expected = events.filter(({ position }) => position <= head).slice(-start.count)[0];
  return !expected || expected.position === positionOf(first.cursor)
    ? []
    : [`${watcher} asked for the last ${start.count} and began with ${first.id}`];
}

function refusals(call: SetWatchRecord, retention: boolean): string[] {
  const { watcher, start, refusal } = call;
  if (!refusal) return [];
  if (!retention || refusal.reason !== 'CURSOR_EXPIRED')
    return [`${watcher}, started ${JSON.stringify(start)}, ended with ${refusal.reason}`];
  const end = endOf({ ...call, topic: '' });
  return refusal.earliest !== undefined && end !== undefined && positionOf(refusal.earliest) <= end
    ? [`${watcher} was told of a gap up to ${refusal.earliest}, and was at ${end}`]
    : [];
}

const eventsOf = ({ seen }: SetWatchRecord): SeenOfSet[] => seen.filter(({ id }) => id !== '');
