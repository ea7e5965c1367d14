import type { CheckedEvents } from '../wire/check-events.js';
import { AppendError } from './event-repository.js';

/** The appends of a commit that are refused, and why. */
export type Refusals = ReadonlyMap<CheckedEvents, AppendError>;

/** Says which appends of the next commit would make the log hold more topics than it may. */
export interface TopicLimit {
  /** Returns undefined if none would: it costs nothing then. */
  refusals(appends: readonly CheckedEvents[]): Refusals | Promise<Refusals> | undefined;
}

/** Returns how many new topics these appends can have at most. */
export function mostNewTopics(appends: readonly CheckedEvents[]): number {
  let most = 0;
  for (const { topics } of appends) most += topics.length;
  return most;
}

/**
 * Refuses, in their order, the appends whose new topics the log has no room for.
 *
 * @param held the number of topics that the log holds now
 * @param isHeld tells whether a topic is one of those
 */
export function refuseNewTopics(
  appends: readonly CheckedEvents[],
  most: number,
  held: number,
  isHeld: (topic: string) => boolean,
): Refusals {
  const refusals = new Map<CheckedEvents, AppendError>();
  const added = new Set<string>();
  for (const append of appends) {
    const fresh = new Set<string>();
    for (const { topic } of append.topics)
      if (!added.has(topic) && !isHeld(topic)) fresh.add(topic);
    if (fresh.size === 0) continue;
    if (held + added.size + fresh.size > most) {
      const [topic] = fresh;
      refusals.set(append, new TooManyTopicsError(most, topic));
    } else {
      for (const topic of fresh) added.add(topic);
    }
  }
  return refusals;
}

/** The log holds as many topics as it may, and an event is of a new one. */
export class TooManyTopicsError extends AppendError {
  constructor(
    readonly most: number,
    topic: string,
  ) {
    super(
      'refused',
      `"${topic}" is a new topic, and the log holds ${most} already, which is all that FEED_MAX_TOPICS allows: ` +
        'use a topic that holds events, or have that setting raised',
    );
  }
}

/** The limit of a log that only this process writes to. */
export class OwnTopicLimit implements TopicLimit {
  constructor(
    private readonly most: number,
    private readonly log: { readonly topicCount: number; holdsTopic(topic: string): boolean },
  ) {}

  refusals(appends: readonly CheckedEvents[]): Refusals | undefined {
    const { log, most } = this;
    if (log.topicCount + mostNewTopics(appends) <= most) return undefined;
    return refuseNewTopics(appends, most, log.topicCount, (topic) => log.holdsTopic(topic));
  }
}
