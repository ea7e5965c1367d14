import type { Topic } from '../api/topics.ts';

interface Seen {
  readonly topic: Topic;
  /** Milliseconds. */
  readonly at: number;
  /** Events per second, once two looks have told it. */
  readonly rate?: number;
}

/** The topics of the last look, by name. */
export type Rates = ReadonlyMap<string, Seen>;

/**
 * Works out from two looks at the same topics how many events a second were stored meanwhile. The server keeps no rates. Where
 * events were removed as well, which a new oldest event shows, the last rate stays.
 */
export function measure(before: Rates, topics: readonly Topic[], now: number): Rates {
  return new Map(
    topics.map((topic) => [topic.topic, { topic, at: now, rate: rateOf(before, topic, now) }]),
  );
}

function rateOf(before: Rates, topic: Topic, now: number): number | undefined {
  const last = before.get(topic.topic);
  if (!last) return undefined;
  const isRemoved = last.topic.oldest && last.topic.oldest.cursor !== topic.oldest?.cursor;
  if (isRemoved) return last.rate;
  return ((topic.events - last.topic.events) * 1000) / (now - last.at);
}
