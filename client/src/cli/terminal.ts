import type { Writable } from 'node:stream';

/** A stream that may be a terminal, such as process.stderr. */
export type TerminalStream = Writable & { readonly isTTY?: boolean; readonly columns?: number };

/** The colours and weights in use, as SGR codes: [on, off]. */
const STYLES = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
} as const;

export type Style = keyof typeof STYLES;

/** Returns the text in a style, or as it is where colour is not wanted. */
export type Paint = (style: Style, text: string) => string;

/**
 * True if colour may be written to the stream. FORCE_COLOR decides first (`0` and `false` are off), then NO_COLOR (any text
 * is off), then whether the stream is a terminal that can do it.
 */
export function allowsColor(stream: TerminalStream, env = process.env): boolean {
  const { FORCE_COLOR, NO_COLOR, TERM } = env;
  if (FORCE_COLOR) return FORCE_COLOR !== '0' && FORCE_COLOR !== 'false';
  return !NO_COLOR && stream.isTTY === true && TERM !== 'dumb';
}

/** Returns the function that colours text for this stream. */
export function paintFor(stream: TerminalStream): Paint {
  if (!allowsColor(stream)) return (_, text) => text;
  return (style, text) => `\u001b[${STYLES[style][0]}m${text}\u001b[${STYLES[style][1]}m`;
}

/** The width of a terminal in columns; 80 if it is unknown. */
export function widthOf(stream: TerminalStream): number {
  return stream.columns || 80;
}

const SHORT_ESCAPES: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/**
 * Returns the text with its control characters escaped, so that an event can't move the cursor of a terminal, rename its
 * window or paint over other lines: `\u001b[2J` becomes the six characters `\u001b` and `[2J`. Characters that turn the
 * direction of text around or break lines are escaped as well.
 */
export function printable(text: string): string {
  return text.replaceAll(
    /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu,
    (character) =>
      SHORT_ESCAPES[character] ?? `\\u${character.codePointAt(0)!.toString(16).padStart(4, '0')}`,
  );
}
