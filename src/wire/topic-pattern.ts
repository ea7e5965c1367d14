import { topicProblem } from './topic.js';

/**
 * A pattern of topics. Its tokens stand between dots, as those of a topic do: `*` is one token whatever it is, and `>`, which
 * only the last one may be, is one or more. So `orders.>` is every topic below orders, and not orders itself.
 */
export type TopicPattern = readonly string[];

/** The pattern of all topics. What is about the whole log, such as a backup, needs a rule of the policy with it. */
export const EVERY_TOPIC = '>';

/** The tokens that stand for others. */
export const ONE = '*';
export const REST = '>';

/**
 * The most tokens that a pattern of a watch may have. Up to 2^n patterns of n tokens match one topic, and each topic of a commit is
 * looked for among all of them (TopicIndex).
 */
export const MAX_PATTERN_TOKENS = 10;

/** True for a pattern, false for a topic. */
export const isPattern = (text: string): boolean => /[*>]/.test(text);

/** Returns what is wrong with a pattern, or undefined if it is valid. */
export function patternProblem(pattern: string): string | undefined {
  const tokens = pattern.split('.');
  const last = tokens.length - 1;
  const stands = (token: string, i: number): boolean =>
    token === ONE || (token === REST && i === last);
  const literal = tokens.filter((token, i) => !stands(token, i));
  if (literal.some((token) => /[*>]/.test(token)))
    return '"*" stands for a whole token, and ">" for all tokens at the end: orders.*.paid, orders.>';
  return topicProblem(tokens.map((token, i) => (stands(token, i) ? 'x' : token)).join('.'));
}

/** @param pattern a text in which patternProblem() finds nothing wrong */
export function parsePattern(pattern: string): TopicPattern {
  return pattern.split('.');
}

/**
 * True if the topic is one of the pattern's; of another pattern, if all its topics are.
 *
 * @param tokens those of the topic, which many patterns may be compared with
 */
export function matchesPattern(pattern: TopicPattern, tokens: readonly string[]): boolean {
  const isOpen = pattern.at(-1) === REST;
  if (isOpen ? tokens.length < pattern.length : tokens.length !== pattern.length) return false;
  const fixed = isOpen ? pattern.length - 1 : pattern.length;
  for (let i = 0; i < fixed; i++) {
    const isOne = pattern[i] === ONE && tokens[i] !== REST;
    if (!isOne && pattern[i] !== tokens[i]) return false;
  }
  return true;
}

/** Returns the narrowest pattern that has all topics of these topics and patterns. */
export function narrowest(members: readonly string[]): string {
  const [first, ...others] = members.map((member) => parsePattern(member));
  let common: TopicPattern = first;
  for (const tokens of others) {
    const merged: string[] = [];
    for (let i = 0; ; i++) {
      const [a, b] = [common[i], tokens[i]];
      if (a === undefined && b === undefined) break;
      if (a === undefined || b === undefined || a === REST || b === REST) {
        // `a.>` has no topic `a`, so what ends here is reached from the token before.
        if (a === undefined || b === undefined) merged.pop();
        merged.push(REST);
        break;
      }
      merged.push(a === b ? a : ONE);
    }
    common = merged;
  }
  return common.join('.');
}
