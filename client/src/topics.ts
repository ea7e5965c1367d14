import { checkText } from './texts.js';

/** A watch's topics and patterns, as they are given: one, or a list. */
export type Topics = string | readonly string[];

/** Returns the list of topics and patterns. @throws TypeError if there is none, or one is no text */
export function topicList(topics: Topics): readonly string[] {
  const list = typeof topics === 'object' && topics !== null ? [...topics] : [topics];
  if (list.length === 0) throw new TypeError('a watch has at least one topic or pattern');
  for (const topic of list) checkText('a topic', topic);
  return list;
}

/** True if these may be several topics: there is a pattern, or more than one. Topics never contain `*` or `>`. */
export function areSeveral(topics: readonly string[]): boolean {
  return topics.length > 1 || /[*>]/.test(topics[0]);
}

/** The most topics that a sentence names. */
const MOST_NAMED = 3;

/** Names topics in a sentence: `a`, `a, b`, `a, b, c and 7 more`. */
export function nameTopics(topics: readonly string[]): string {
  const named = topics.slice(0, MOST_NAMED).join(', ');
  const others = topics.length - MOST_NAMED;
  return others > 0 ? `${named} and ${others} more` : named;
}
