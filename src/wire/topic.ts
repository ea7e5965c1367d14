/** The longest topic or room name, in bytes of UTF-8. */
export const MAX_TOPIC_BYTES = 200;

// White space and control characters (U+0000 to U+001F and U+007F to U+009F) are forbidden. So are * and >: they are
// reserved for patterns of topics.
const FORBIDDEN = /[\s\p{Cc}*>]/u;

/** Returns what is wrong with the name of a topic or room, or undefined if it is valid. */
export function topicProblem(name: string): string | undefined {
  if (name === '') return 'it is empty';
  if (!name.isWellFormed()) return 'it is not valid UTF-8';
  const bytes = Buffer.byteLength(name);
  if (bytes > MAX_TOPIC_BYTES) return `it has ${bytes} bytes, over the limit of ${MAX_TOPIC_BYTES}`;
  if (FORBIDDEN.test(name)) return 'it has white space, a control character, "*" or ">"';
  if (name.split('.').includes('')) return 'it has an empty token between its dots';
  return undefined;
}
