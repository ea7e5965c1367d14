import { type Caller, forbidden, type Verb } from '../feed/caller.js';
import type { FeedError } from '../feed/errors.js';
import type { Policy } from './policy.js';

/**
 * A session remembers at most this many allowed topics of an upload. Beyond that it forgets the first one, which is checked again at its
 * next use. They take 250 bytes each, which have to fit in what an idle upload may take, 16 KiB. It forgets no room of a chat: their
 * number is limited elsewhere, and messages of all of them go on.
 */
const MAX_UPLOAD_TOPICS = 32;

/** The caller of one open call, who may do what the policy allows. It remembers what it has allowed. */
export class Session implements Caller {
  private readonly allowed = new Map<Verb, Set<string | undefined>>();

  constructor(
    readonly principal: string,
    /** The time (Date.now()) from which on the caller is no longer known; Infinity without a token. */
    readonly expiresAt: number,
    /** Returns the current policy; undefined if there is none, and everything is allowed. */
    private readonly policy: () => Policy | undefined,
  ) {}

  may(verb: Verb, topic?: string): boolean {
    const policy = this.policy();
    if (!policy) return true;
    let topics = this.allowed.get(verb);
    if (topics?.has(topic)) return true;
    if (!policy.allows(this.principal, verb, topic)) return false;
    if (!topics) this.allowed.set(verb, (topics = new Set()));
    topics.add(topic);
    if (verb === 'upload' && topics.size > MAX_UPLOAD_TOPICS) {
      const [oldest] = topics;
      topics.delete(oldest);
    }
    return true;
  }

  /** The number of topics and rooms that problem() looks at. */
  get remembered(): number {
    let count = 0;
    for (const topics of this.allowed.values()) count += topics.size;
    return count;
  }

  /** Returns why the call may not go on, if the policy no longer allows what the call does. */
  problem(): FeedError | undefined {
    const policy = this.policy();
    if (!policy) return undefined;
    for (const [verb, topics] of this.allowed)
      for (const topic of topics)
        if (!policy.allows(this.principal, verb, topic)) return forbidden(this, verb, topic);
    return undefined;
  }
}
