import { type Check, LABELS, type State } from './finding.js';
import { printable, type Paint, type Style } from '../terminal.js';

const STATES: Readonly<Record<State, readonly [text: string, style: Style]>> = {
  ok: ['ok', 'green'],
  warning: ['warning', 'yellow'],
  failed: ['FAILED', 'red'],
  skipped: ['skipped', 'dim'],
};

const STATE_COLUMNS = 9;
const LABEL_COLUMNS = 18;
const INDENT = ' '.repeat(STATE_COLUMNS + LABEL_COLUMNS);

/** Returns a check as lines for people: one with what was found, and an indented paragraph for each piece of advice. */
export function linesOf(
  { check, state, detail, advice = [] }: Check,
  paint: Paint,
  columns: number,
): string {
  const [text, style] = STATES[state];
  // The detail may hold text that the server has sent.
  const line = `${paint(style, text.padEnd(STATE_COLUMNS))}${LABELS[check].padEnd(LABEL_COLUMNS)}${printable(detail)}`;
  const paragraphs = advice.map((one) => wrapped(printable(one), columns));
  return [line, ...paragraphs].join('\n');
}

/** Breaks a paragraph into indented lines, the first with a mark. */
function wrapped(text: string, columns: number): string {
  const width = Math.max(30, columns - INDENT.length - 2);
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines.map((line, i) => `${INDENT}${i === 0 ? '- ' : '  '}${line}`).join('\n');
}

/** Returns a check as a line of NDJSON. */
export function jsonOf({ server, check, state, detail, figures, advice }: Check): string {
  return JSON.stringify({ server, check, state, detail, figures, advice });
}

/** Counts the checks by their states: `9 ok, 1 FAILED, 3 skipped`. */
export function summaryOf(checks: readonly Check[]): string {
  const counts = Object.entries(STATES).map(([state, [text]]) => {
    const count = checks.filter((one) => one.state === state).length;
    return count === 0 ? '' : `${count} ${text}`;
  });
  return counts.filter((text) => text !== '').join(', ') || 'nothing was checked';
}
