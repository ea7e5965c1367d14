import { isEnd } from '../../src/repository/jetstream/message.js';
import type { Position } from '../../src/wire/cursor.js';
import {
  endOf,
  type History,
  type Known,
  knownEvents,
  positionOf,
  startOf,
  watchers,
  type WatchRecord,
} from './history.js';
import { sets } from './set-validator.js';

/** Checks a history against one promise, and returns a sentence for each breach. */
export type Validator = (history: History) => string[];

/** Positions only go up, within a watch and along each producer's uploads; one position has one event. */
function ordered(history: History): string[] {
  const breaches: string[] = [];
  const at = new Map<number, string>();
  for (const { watcher, topic, seen } of history.watches) {
    let before = -1;
    for (const { cursor, id, intact } of seen) {
      const position = positionOf(cursor);
      // A heartbeat may have the position of the event before it.
      if (position < before || (position === before && id !== ''))
        breaches.push(`${watcher} got ${id || 'a heartbeat'} at ${position} after ${before}`);
      before = position;
      if (id === '') continue;
      if (!intact) breaches.push(`${watcher} got ${id} with another topic or body`);
      const event = `${topic} ${id}`;
      const other = at.get(position);
      if (other !== undefined && other !== event)
        breaches.push(`position ${position} has both ${other} and ${event}`);
      at.set(position, event);
    }
  }
  const places = new Map([...at].map(([position, event]) => [event, position]));
  const topicsOfTwins = twins(history);
  const storedAgain = forgetsIds(history) ? sentTwice(history) : new Set<string>();
  for (const { producer, events } of history.uploads) {
    const before = new Map<string, number>();
    for (const { topic, id } of events) {
      const place = places.get(`${topic} ${id}`);
      // Events that two producers send may be stored in the order of either.
      if (place === undefined || topicsOfTwins.has(producer)) continue;
      // An event that was removed and sent again may be stored again, behind those that were sent after it.
      if (storedAgain.has(`${topic} ${id}`)) continue;
      const last = before.get(topic) ?? -1;
      if (place < last) breaches.push(`${producer}: ${id} is stored before events sent before it`);
      before.set(topic, place);
    }
  }
  return breaches;
}

/**
 * No event is stored twice, and none is taken for another's duplicate. A log that forgets the ids of removed events may store
 * one of them again, but never while the first one is held.
 */
function unique(history: History): string[] {
  const breaches: string[] = [];
  const forgets = forgetsIds(history);
  for (const [topic, events] of knownEvents(history)) {
    const places = new Map<string, number>();
    for (const { id, position } of events) {
      const other = places.get(id);
      places.set(id, position);
      if (other === undefined) continue;
      if (!forgets) breaches.push(`${topic} has ${id} at ${other} and ${position}`);
      else if (areHeldTogether(history, topic, other, position))
        breaches.push(`${topic} held ${id} at ${other} and ${position} at the same time`);
    }
  }
  const sent = new Set<string>();
  /** Events of failed calls and of calls with an unknown result, which may have stored them. */
  const unsure = new Set<string>();
  let first = 0;
  for (const { events, result } of history.uploads) {
    for (const { topic, id } of events)
      (result.is === 'stored' ? sent : unsure).add(`${topic} ${id}`);
    if (result.is === 'stored') first += result.received - result.duplicates;
  }
  const least = [...sent].filter((event) => !unsure.has(event)).length;
  if (first < least || (first > sent.size && !forgets))
    breaches.push(`of ${least} to ${sent.size} different events, ${first} were counted as new`);
  return breaches;
}

/** True if the log may forget the ids of events that retention has removed. */
const forgetsIds = ({ isReplicated, retention }: History): boolean => isReplicated && retention;

/** Returns true if some watch began while the log ended at or after `newer`, and still held the topic from before `older`. */
function areHeldTogether(
  { watches }: History,
  topic: string,
  older: Position,
  newer: Position,
): boolean {
  return watches.some(
    (watch) =>
      watch.topic === topic &&
      watch.headers !== undefined &&
      positionOf(watch.headers.head) >= newer &&
      positionOf(watch.headers.earliest) < older,
  );
}

/** A watch skips no event between its start and the last event that it got. */
function complete(history: History): string[] {
  const known = knownEvents(history);
  const times = timesOf(history);
  return history.watches.flatMap((watch) => {
    const start = watch.start.is === 'earliest' && !history.retention ? 0 : startOf(watch);
    const end = endOf(watch);
    if (start === undefined || end === undefined) return [];
    const got = new Set(watch.seen.map(({ cursor }) => positionOf(cursor)));
    const missing = between(known.get(watch.topic), start, end).filter(
      ({ position }) => !got.has(position),
    );
    const early = watch.seen.filter(({ cursor, id }) => id !== '' && positionOf(cursor) <= start);
    return [
      ...missing.map(({ id, position }) => `${watch.watcher} did not get ${id} at ${position}`),
      ...early.map(({ id }) => `${watch.watcher} got ${id}, which stands before its start`),
      ...newest(watch, known.get(watch.topic), history.retention),
      ...since(watch, known.get(watch.topic), times, history.retention),
    ];
  });
}

/** A watch of the newest n begins with the n-th newest event, or with the oldest; or later, if retention removed that. */
function newest(
  { watcher, start, headers, seen }: WatchRecord,
  known: readonly Known[] = [],
  retention: boolean,
): string[] {
  const first = seen.find(({ id }) => id !== '');
  if (start.is !== 'last' || !headers || !first) return [];
  const [earliest, head] = [positionOf(headers.earliest), positionOf(headers.head)];
  const expected = between(known, earliest, head).slice(-start.count)[0];
  if (!expected) return [];
  const begun = positionOf(first.cursor);
  if (begun === expected.position || (retention && begun > expected.position)) return [];
  return [`${watcher} asked for the last ${start.count} and began with ${first.id}`];
}

/** A watch since a time gets the events stored from then on, and none from before. */
function since(
  watch: WatchRecord,
  known: readonly Known[] = [],
  times: ReadonlyMap<string, Times>,
  retention: boolean,
): string[] {
  const { watcher, topic, start, seen } = watch;
  if (start.is !== 'since') return [];
  const got = new Set(seen.map(({ id }) => id));
  const end = endOf(watch) ?? 0;
  return known.flatMap(({ id, position }) => {
    const { sent, acknowledged } = times.get(`${topic} ${id}`) ?? {
      sent: 0,
      acknowledged: Infinity,
    };
    const isLater = sent > start.time + CLOCK_MARGIN;
    if (isLater && !got.has(id) && position <= end && !retention)
      return [`${watcher} asked for what was stored since a time, and did not get ${id}`];
    if (acknowledged < start.time - CLOCK_MARGIN && got.has(id))
      return [`${watcher} got ${id}, which was stored before the time that it asked for`];
    return [];
  });
}

/** A watch after a cursor that was given out is refused only if retention removed the events after it. */
function resumable({ watches, retention }: History): string[] {
  return watches.flatMap(({ watcher, refusal, start }) =>
    !refusal || (retention && refusal.reason === 'CURSOR_EXPIRED')
      ? []
      : [`${watcher}, started ${JSON.stringify(start)}, ended with ${refusal.reason}`],
  );
}

/** The events that a watcher did not get in all its calls are exactly those that the server said are removed. */
function gapHonest(history: History): string[] {
  const known = knownEvents(history);
  const unseen = unseenTopics(history, known);
  return watchers(history).flatMap((calls) => {
    const [{ watcher, topic }] = calls;
    // The start is not known of a call that retention overtook before its first event, so such calls are passed over.
    const firstCall = calls.findIndex((call) => startOf(call) !== undefined);
    if (firstCall < 0) return [];
    const begin = startOf(calls[firstCall])!;
    const breaches: string[] = [];
    const got = new Set<number>();
    const gone = new Set<number>();
    let end = begin;
    for (const call of calls.slice(firstCall)) {
      for (const { cursor, id } of call.seen) if (id !== '') got.add(positionOf(cursor));
      end = Math.max(end, endOf(call) ?? 0);
      if (call.refusal?.earliest === undefined) continue;
      const earliest = positionOf(call.refusal.earliest);
      // A replica that knows nothing of a topic may take it back to where nothing is that it would get twice.
      const isNoGap = earliest <= end;
      const again = between(known.get(topic), earliest, end);
      if (isNoGap && !(forgetsIds(history) && again.length === 0))
        breaches.push(`${watcher} was told of a gap from ${end} to ${earliest}, which is empty`);
      const taken = between(known.get(topic), end, earliest);
      const isEmpty = taken.length === 0 && !unseen.has(topic);
      if (isEmpty && !isNoGap && !mayBeEmpty(history, call.refusal.earliest))
        breaches.push(`${watcher} was told of a gap from ${end} to ${earliest} with nothing in it`);
      for (const { position } of taken) gone.add(position);
      end = Math.max(end, earliest);
    }
    for (const { id, position } of between(known.get(topic), begin, end)) {
      if (got.has(position) === gone.has(position))
        breaches.push(
          gone.has(position)
            ? `${watcher} got ${id}, which it was told is gone`
            : `${watcher} misses ${id} at ${position}, and was not told`,
        );
    }
    return breaches;
  });
}

/**
 * Returns true if a gap up to this cursor may have nothing in it: a replica that knows nothing of a topic declares one up to the
 * oldest message of the whole stream. That position has no event (message.ts); every other one must be exact.
 */
const mayBeEmpty = ({ isReplicated, retention }: History, earliest: string): boolean =>
  isReplicated && retention && isEnd(positionOf(earliest));

/**
 * All events of an acknowledged upload are stored; of a failed upload exactly those that its status counts; of a broken
 * upload a prefix in each topic. (Not one prefix over all topics, because the server may store more of it after the topics
 * were read to different positions.)
 */
function durable(history: History): string[] {
  const stored = new Set(
    [...knownEvents(history)].flatMap(([topic, events]) =>
      events.map(({ id }) => `${topic} ${id}`),
    ),
  );
  const readings = new Map(
    [...topicsOf(history)].map((topic) => [topic, steadyReading(history, topic)]),
  );
  const resent = sentTwice(history);
  return history.uploads.flatMap(({ producer, events, result, lastCursor }) => {
    const breaches: string[] = [];
    const acknowledged = result.is === 'unknown' ? 0 : result.received;
    if (result.is === 'stored' && acknowledged !== events.length)
      breaches.push(
        `${producer} sent ${events.length} events, of which ${acknowledged} are stored`,
      );
    const last = events.at(-1);
    if (result.is === 'stored' && last) {
      const { got, gone } = readings.get(last.topic)!;
      const position = positionOf(lastCursor);
      if (got.get(position) !== last.id && !gone.some((gap) => isIn(gap, position)))
        breaches.push(
          `${producer}: ${last.id} was acknowledged at ${position}, is not there, and no gap was declared`,
        );
    }
    const ended = new Set<string>();
    events.forEach(({ topic, id }, i) => {
      const isThere = stored.has(`${topic} ${id}`);
      // Only the last event's position is known, so a gap in the topic excuses any of the events before it.
      if (i < acknowledged && !isThere && readings.get(topic)!.gone.length === 0)
        breaches.push(`${producer}: ${id} was acknowledged and is not there`);
      // With retention, events of a broken upload may be stored and removed again without any watch seeing them.
      if (i >= acknowledged && !(result.is === 'unknown' && history.retention)) {
        if (result.is === 'failed' || !isThere) ended.add(topic);
        if (ended.has(topic) && isThere && !resent.has(`${topic} ${id}`))
          breaches.push(`${producer}: ${id} is there, beyond what is stored of its upload`);
      }
    });
    return breaches;
  });
}

/** No event that a watch saw is taken back: the last reader finds it at the same position. */
function neverEarly(history: History): string[] {
  const known = knownEvents(history);
  return history.watches
    .filter(({ watcher }) => watcher.endsWith(LAST_READER))
    .flatMap((last) => {
      const start = startOf(last);
      if (start === undefined) return [`${last.watcher} did not start`];
      const found = new Map(last.seen.map(({ cursor, id }) => [positionOf(cursor), id]));
      return between(known.get(last.topic), start, endOf(last) ?? 0)
        .filter(({ position, id }) => found.get(position) !== id)
        .map(({ id, position }) => `${id} was seen at ${position}, and is not there in the end`);
    });
}

/** The end of the names of watchers that read a topic from its beginning after all else is over. */
export const LAST_READER = 'last';

/** The end of the names of watchers that read a topic from its beginning all the time. */
export const STEADY_READER = 'steady';

export const validators: Readonly<Record<string, Validator>> = {
  ordered,
  unique,
  complete,
  resumable,
  gapHonest,
  durable,
  neverEarly,
  sets,
};

function between(events: readonly Known[] = [], after: number, until: number): Known[] {
  return events.filter(({ position }) => position > after && position <= until);
}

/** The positions after `after`, up to and including `until`. */
type Gap = readonly [after: Position, until: Position];

const isIn = ([after, until]: Gap, position: Position): boolean =>
  position > after && position <= until;

/** Returns the events that a topic's steady reader got, and the gaps that it was told of. */
function steadyReading(
  { watches, retention }: History,
  topic: string,
): { got: Map<Position, string>; gone: Gap[] } {
  const got = new Map<Position, string>();
  const gone: Gap[] = [];
  let end = 0;
  for (const call of watches) {
    if (call.topic !== topic || !call.watcher.endsWith(STEADY_READER)) continue;
    const { start, headers, seen, refusal } = call;
    if (start.is === 'earliest' && headers) gone.push([0, positionOf(headers.earliest)]);
    for (const { cursor, id } of seen) if (id !== '') got.set(positionOf(cursor), id);
    end = Math.max(end, endOf(call) ?? 0);
    if (refusal?.earliest !== undefined) gone.push([end, positionOf(refusal.earliest)]);
  }
  return { got, gone: gone.filter(([after, until]) => retention && until > after) };
}

function topicsOf({ uploads }: History): Set<string> {
  return new Set(uploads.flatMap(({ events }) => events.map(({ topic }) => topic)));
}

/** How far (milliseconds) the log's time and a client's may differ. */
const CLOCK_MARGIN = 1_000;

interface Times {
  /** When the event was first sent and when it was first acknowledged. It was stored between the two. */
  readonly sent: number;
  readonly acknowledged: number;
}

function timesOf({ uploads }: History): Map<string, Times> {
  const times = new Map<string, Times>();
  for (const { events, result, begun, ended } of uploads)
    for (const { topic, id } of events) {
      const event = `${topic} ${id}`;
      const { sent, acknowledged } = times.get(event) ?? { sent: begun, acknowledged: Infinity };
      times.set(event, {
        sent: Math.min(sent, begun),
        acknowledged: Math.min(acknowledged, result.is === 'stored' ? ended : Infinity),
      });
    }
  return times;
}

/**
 * Returns the topics of events that no watch saw, which were not stored, or were removed before a watch read them; and those of
 * events that may have been stored once more, where no watch saw that.
 */
function unseenTopics(history: History, known: ReadonlyMap<string, Known[]>): Set<string> {
  const seen = new Set([...known].flatMap(([topic, all]) => all.map(({ id }) => `${topic} ${id}`)));
  const mayBeStoredAgain = forgetsIds(history) ? sentTwice(history) : new Set<string>();
  const isUnseen = (event: string): boolean => !seen.has(event) || mayBeStoredAgain.has(event);
  return new Set(
    history.uploads.flatMap(({ events }) =>
      events.filter(({ topic, id }) => isUnseen(`${topic} ${id}`)).map(({ topic }) => topic),
    ),
  );
}

/** Returns the events that more than one call sent. */
function sentTwice({ uploads }: History): Set<string> {
  const once = new Set<string>();
  const twice = new Set<string>();
  for (const { events } of uploads)
    for (const { topic, id } of events) {
      const event = `${topic} ${id}`;
      (once.has(event) ? twice : once).add(event);
    }
  return twice;
}

/** Returns the producers that sent an event that another producer sent as well. */
function twins({ uploads }: History): Set<string> {
  const senders = new Map<string, Set<string>>();
  for (const { producer, events } of uploads)
    for (const { topic, id } of events) {
      const event = `${topic} ${id}`;
      const producers = senders.get(event) ?? new Set<string>();
      senders.set(event, producers.add(producer));
    }
  return new Set([...senders.values()].filter(({ size }) => size > 1).flatMap((all) => [...all]));
}
