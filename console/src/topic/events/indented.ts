/**
 * Returns a JSON object or array with a line for each value, or undefined if the text is none. Numbers and texts stay as they
 * are written: JSON.stringify(JSON.parse(text)) would round long numbers.
 */
export function indented(text: string): string | undefined {
  if (!/^\s*[[{]/.test(text)) return undefined;
  try {
    JSON.parse(text);
  } catch {
    return undefined;
  }
  let result = '';
  let depth = 0;
  const line = (): string => `\n${'  '.repeat(depth)}`;
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '{' || token === '[') {
      depth++;
      result += token + line();
    } else if (token === '}' || token === ']') {
      depth--;
      const isEmpty = /[[{]\s*$/.test(result.slice(-2 - 2 * (depth + 1)));
      result = isEmpty ? result.trimEnd() + token : result + line() + token;
    } else if (token === ',') result += token + line();
    else result += token === ':' ? ': ' : token;
  }
  return result;
}

/** A text, a bracket, comma or colon, or a number or name. What is left is white space. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
