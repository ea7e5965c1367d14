import { framedTopics } from '../wire/framed-topics.js';
import type { Frames } from '../wire/frames.js';
import { TopicSet } from '../wire/topic-set.js';

/** Counts batches of events. */
export interface BatchCount {
  add(batch: Frames): void;
}

/** Events and their bytes (framed, as they are stored and sent) since the start. */
export class Count implements BatchCount {
  events = 0;
  bytes = 0;

  add({ count, bytes }: Frames): void {
    this.events += count;
    this.bytes += bytes.length;
  }
}

/** The part of a batch that is counted. */
interface TopicBatch {
  readonly topic: string;
  readonly count: number;
  readonly bytes: Buffer;
}

/** Counts events by topic: each of a fixed list by itself, and all others together. */
export class TopicCounts {
  readonly others = new Count();
  readonly byTopic: ReadonlyMap<string, Count>;

  constructor(topics: readonly string[]) {
    this.byTopic = new Map(topics.map((topic) => [topic, new Count()]));
  }

  /** Returns the count to which the events of a topic are added. */
  of(topic: string): Count {
    return this.byTopic.get(topic) ?? this.others;
  }

  /** Returns what counts the batches of these topics and patterns. Only a batch that may have several counts is looked into. */
  ofBatches(topics: readonly string[]): BatchCount {
    if (this.byTopic.size === 0) return this.others;
    const set = new TopicSet(topics);
    if (set.topic !== undefined) return this.of(set.topic);
    const isListed = [...this.byTopic.keys()].some((topic) => set.has(topic));
    return isListed ? { add: (batch) => this.addEach(batch) } : this.others;
  }

  private addEach({ bytes }: Frames): void {
    for (const { topic, size } of framedTopics(bytes)) {
      const counted = this.of(topic);
      counted.events++;
      counted.bytes += size;
    }
  }

  /** Adds the events of several topics, in one step if no topic is listed. */
  add(batch: {
    readonly topics: readonly TopicBatch[];
    readonly count: number;
    readonly bytes: number;
  }): void {
    if (this.byTopic.size === 0) {
      this.others.events += batch.count;
      this.others.bytes += batch.bytes;
      return;
    }
    for (const { topic, count, bytes } of batch.topics) {
      const counted = this.of(topic);
      counted.events += count;
      counted.bytes += bytes.length;
    }
  }
}

/** What came in and went out since the start, for metrics. Use cases count it for each batch that they take or send. */
export class Traffic {
  /** Events that uploads sent and that were valid, also those that were then refused or stored before. */
  readonly received: TopicCounts;
  /** Events that were handed to the connections of watches. */
  readonly sent: TopicCounts;
  /** Events that were not stored, because they were stored before. */
  duplicates = 0;
  /** Messages of chats: those that came, and those that were handed to connections. */
  chatReceived = 0;
  chatSent = 0;

  /** @param topics those that are counted by themselves */
  constructor(topics: readonly string[] = []) {
    this.received = new TopicCounts(topics);
    this.sent = new TopicCounts(topics);
  }
}
