/** JSON of more levels than this is not indented: each line begins with two spaces for each level that it is in. */
const MOST_LEVELS = 100;

/**
 * Returns a JSON object or array with a line for each value, or undefined if the text is none, or has more than MOST_LEVELS. Numbers and
 * texts stay as they are written: JSON.stringify(JSON.parse(text)) would round long numbers.
 *
 * Anybody who may upload writes the text. So it is read once, and no further than it takes for `most` characters of the result.
 *
 * @param most a longer result is cut to one character more, which shows that it was cut
 */
export function indented(text: string, most: number): string | undefined {
  if (!/^\s*[[{]/.test(text)) return undefined;
  try {
    JSON.parse(text);
  } catch {
    return undefined;
  }
  let result = '';
  let level = 0;
  let previous = '';
  const line = (): string => `\n${'  '.repeat(level)}`;
  for (const [token] of text.matchAll(TOKEN)) {
    const isFirst = previous === '{' || previous === '[';
    if (token === '}' || token === ']') {
      level--;
      result += isFirst ? token : line() + token;
    } else {
      if (isFirst || previous === ',') result += line();
      result += token === ':' ? ': ' : token;
      if (token === '{' || token === '[') level++;
      if (level > MOST_LEVELS) return undefined;
    }
    if (result.length > most) break;
    previous = token;
  }
  return result.slice(0, most + 1);
}

/** A text, a bracket, comma or colon, or a number or name. What is left is white space. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
