/** The longest topic or room name, in bytes of UTF-8. */
export const MAX_TOPIC_BYTES = 200;

// White space, control characters (both of Unicode's ranges), and what a pattern of topics uses.
const FORBIDDEN = /[\s\p{Cc}*>]/u;

/** What is wrong with the name of a topic or room, or undefined if nothing is. */
export function topicProblem(name: string): string | undefined {
  if (name === '') return 'it is empty';
  if (!name.isWellFormed()) return 'it is not valid UTF-8';
  const bytes = Buffer.byteLength(name);
  if (bytes > MAX_TOPIC_BYTES) return `it has ${bytes} bytes, over the limit of ${MAX_TOPIC_BYTES}`;
  if (FORBIDDEN.test(name)) return 'it has white space, a control character, "*" or ">"';
  if (name.split('.').includes('')) return 'it has an empty token between its dots';
  return undefined;
}
