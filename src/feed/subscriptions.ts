import { isPattern, parsePattern } from '../wire/topic-pattern.js';
import { limitExceeded } from './call-limits.js';
import { LimitHits } from './limit-hits.js';
import { type CallRecord, type LiveCall, LiveCalls } from './live-calls.js';

const LIMIT = 'FEED_MAX_SUBSCRIPTIONS';

/**
 * Limits how many subscriptions all open watches and chats have together, because each takes memory beside the streams. A watch of several
 * topics has one for each topic, and for each token of a pattern; a watch of one topic has none. A chat has one for each room that it is in.
 */
export class Subscriptions {
  private inAll = 0;
  private readonly claims = new WeakMap<CallRecord, number>();

  constructor(
    private readonly most = Infinity,
    private readonly calls = new LiveCalls(),
    private readonly hits = new LimitHits(),
  ) {
    calls.onGone((call) => (this.inAll -= this.claims.get(call) ?? 0));
  }

  /** Counts the topics and patterns of a watch until its call ends. @throws FeedError LIMIT_EXCEEDED */
  claimTopics(call: CallRecord, topics: readonly string[]): void {
    if (topics.length === 1) return;
    let count = 0;
    for (const topic of topics) count += isPattern(topic) ? parsePattern(topic).length : 1;
    this.claim(call, count);
  }

  /** Counts so many subscriptions of a call until it ends. @throws FeedError LIMIT_EXCEEDED */
  claim(call: CallRecord, count: number): void {
    // Its client may have gone while its watch started. Nothing would give them back.
    if (!this.calls.has(call as LiveCall)) return;
    if (this.inAll + count > this.most) {
      this.hits.add(LIMIT);
      throw limitExceeded(
        LIMIT,
        this.most,
        `all have ${this.inAll} topics and rooms, this adds ${count}`,
      );
    }
    this.inAll += count;
    this.claims.set(call, (this.claims.get(call) ?? 0) + count);
  }
}
