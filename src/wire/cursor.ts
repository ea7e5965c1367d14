import { FRAME_HEADER_BYTES, frameLength } from './frames.js';

/**
 * Where an event stands in the log: one sequence over all topics, from 1; 0 is before the first. Below
 * 2^48, which is 89 years of 100,000 events a second.
 */
export type Position = number;
export const MAX_POSITION = 2 ** 48 - 1;

/** Names the history that wrote a position: six letters and digits. A log has one for each time it was opened. */
export type Epoch = string;

export interface Cursor {
  readonly epoch: Epoch;
  readonly position: Position;
}

// Crockford's base 32: no letter looks like a digit, and text sorts as its number.
const DIGITS = '0123456789abcdefghjkmnpqrstvwxyz';
const DIGIT_CODES = Buffer.from(DIGITS);
const VALUES = new Int8Array(256).fill(-1);
for (let value = 0; value < 32; value++) VALUES[DIGIT_CODES[value]] = value;

// The position first, so that the text of cursors sorts as the log does.
const POSITION_CHARS = 10;
const EPOCH_CHARS = 6;
export const CURSOR_BYTES = EPOCH_CHARS + POSITION_CHARS;
const CURSOR = new RegExp(`^[${DIGITS}]{${CURSOR_BYTES}}$`);

/** Event.cursor as the last field of an encoded event: tag, length, and the cursor's characters. */
export const CURSOR_FIELD_BYTES = 2 + CURSOR_BYTES;
export const CURSOR_FIELD = 5;
const CURSOR_TAG = (CURSOR_FIELD << 3) | 2;

/** Makes an epoch out of 30 random bits. */
export function epochOf(bits: number): Epoch {
  let epoch = '';
  for (let i = 0; i < EPOCH_CHARS; i++) epoch += DIGITS[(bits >>> (5 * i)) & 31];
  return epoch;
}

export function formatCursor({ epoch, position }: Cursor): string {
  const text = Buffer.allocUnsafe(CURSOR_BYTES);
  writeCursor(text, epoch, position);
  return text.toString('latin1');
}

/** Reads what formatCursor() wrote; undefined for any other text. */
export function parseCursor(text: string): Cursor | undefined {
  if (!CURSOR.test(text)) return undefined;
  let position = 0;
  for (let i = 0; i < POSITION_CHARS; i++) position = position * 32 + VALUES[text.charCodeAt(i)];
  return position > MAX_POSITION ? undefined : { epoch: text.slice(POSITION_CHARS), position };
}

/** Writes the tag and length of a cursor field whose characters stampCursors() fills in. */
export function reserveCursor(target: Buffer, offset: number): void {
  target[offset] = CURSOR_TAG;
  target[offset + 1] = CURSOR_BYTES;
}

const scratch = Buffer.alloc(CURSOR_BYTES);

/**
 * Fills in the cursors of framed events that each end in a reserved cursor field: `first` for the first
 * event, the next position for the next one.
 */
export function stampCursors(frames: Buffer, epoch: Epoch, first: Position): void {
  writeCursor(scratch, epoch, first);
  for (let at = 0; at < frames.length;) {
    at += FRAME_HEADER_BYTES + frameLength(frames, at);
    const start = at - CURSOR_BYTES;
    for (let i = 0; i < CURSOR_BYTES; i++) frames[start + i] = scratch[i];
    increment(scratch);
  }
}

function writeCursor(target: Buffer, epoch: Epoch, position: Position): void {
  target.write(epoch, POSITION_CHARS, 'latin1');
  // Two halves of 25 bits, because JavaScript shifts 32-bit numbers.
  let high = Math.floor(position / 2 ** 25);
  let low = position % 2 ** 25;
  for (let i = 9; i >= 5; i--, low >>>= 5) target[i] = DIGIT_CODES[low & 31];
  for (let i = 4; i >= 0; i--, high >>>= 5) target[i] = DIGIT_CODES[high & 31];
}

/** Counts up in place: in 31 of 32 cases one byte changes. */
function increment(cursor: Buffer): void {
  for (let i = POSITION_CHARS - 1; i >= 0; i--) {
    const value = VALUES[cursor[i]];
    if (value < 31) {
      cursor[i] = DIGIT_CODES[value + 1];
      return;
    }
    cursor[i] = DIGIT_CODES[0];
  }
}
