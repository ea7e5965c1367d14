import { address, json } from './http.ts';

/** An event's place in the log. */
export interface Stored {
  readonly cursor: string;
  readonly storedAt: string;
}

export interface Topic {
  readonly topic: string;
  readonly events: number;
  readonly bytes: number;
  readonly oldest?: Stored;
  readonly newest?: Stored;
  readonly watches: number;
}

/** A topic as it comes: 64-bit numbers are strings in proto3's JSON. */
type WireTopic = Omit<Topic, 'events' | 'bytes'> & {
  readonly events: string;
  readonly bytes: string;
};

const fromWire = (topic: WireTopic): Topic => ({
  ...topic,
  events: Number(topic.events),
  bytes: Number(topic.bytes),
});

export interface TopicPage {
  readonly topics: readonly Topic[];
  /** True if the server has more topics than these. */
  readonly isCut: boolean;
}

/** The most topics of an answer. */
const PAGE = 1000;

/** Returns the topics whose names begin with `prefix`, up to `most` of them. */
export async function listTopics(
  prefix: string,
  most: number,
  signal: AbortSignal,
): Promise<TopicPage> {
  const topics: Topic[] = [];
  let after = '';
  do {
    const query = { prefix, after, limit: Math.min(PAGE, most - topics.length) };
    const page = await json<{ topics: WireTopic[]; nextPageToken: string }>(
      address('topics', query),
      signal,
    );
    topics.push(...page.topics.map(fromWire));
    after = page.nextPageToken;
  } while (after !== '' && topics.length < most);
  return { topics, isCut: after !== '' };
}

export async function readTopic(topic: string, signal: AbortSignal): Promise<Topic> {
  const path = `topics/${encodeURIComponent(topic)}`;
  return fromWire((await json<{ topic: WireTopic }>(address(path), signal)).topic);
}
