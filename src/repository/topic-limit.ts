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
    const holds = held + added.size;
    if (holds + fresh.size > most) {
      refusals.set(append, new TooManyTopicsError(most, holds, [...fresh]));
    } else {
      for (const topic of fresh) added.add(topic);
    }
  }
  return refusals;
}

/** With the new topics of an append, the log would hold more topics than it may. */
export class TooManyTopicsError extends AppendError {
  /**
   * @param held the number of topics that the log holds
   * @param fresh the new topics of the append
   */
  constructor(
    readonly most: number,
    held: number,
    fresh: readonly string[],
  ) {
    const others = fresh.length > 1 ? `, the first of ${fresh.length} that came together` : '';
    super(
      'refused',
      `"${fresh[0]}" is a new topic${others}, and the log holds ${held} of the ${most} that FEED_MAX_TOPICS allows: ` +
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
