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

/** The longest topic, in bytes of UTF-8. */
const MAX_TOPIC_BYTES = 200;

/** Returns what is wrong with the name of a topic, or undefined if it is valid. The rule is that of the contract (docs/protocol.md, "Names"). */
export function topicProblem(name: string): string | undefined {
  if (name === '') return 'it is empty';
  const bytes = Buffer.byteLength(name);
  if (bytes > MAX_TOPIC_BYTES) return `it has ${bytes} bytes, over the limit of ${MAX_TOPIC_BYTES}`;
  if (/[\s\p{Cc}*>]/u.test(name)) return 'it has white space, a control character, "*" or ">"';
  if (name.split('.').includes('')) return 'it has an empty token between its dots';
  return undefined;
}

/** Returns what is wrong with a topic or a pattern of topics, or undefined if it is valid. The rules are those of the contract. */
export function patternProblem(pattern: string): string | undefined {
  const bytes = Buffer.byteLength(pattern);
  if (bytes > MAX_TOPIC_BYTES) return `it has ${bytes} bytes, over the limit of ${MAX_TOPIC_BYTES}`;
  if (/[\s\p{Cc}]/u.test(pattern)) return 'it has white space or a control character';
  const tokens = pattern.split('.');
  if (tokens.includes('')) return 'it is empty, or has an empty token between its dots';
  const stands = (token: string, i: number): boolean =>
    token === '*' || (token === '>' && i === tokens.length - 1);
  if (tokens.some((token, i) => /[*>]/.test(token) && !stands(token, i)))
    return '"*" stands for a whole token, and ">" for all tokens at the end: orders.*.paid, orders.>';
  return undefined;
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
