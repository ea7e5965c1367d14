import { FRAME_HEADER_BYTES, frameLength } from './frames.js';
import { BYTES } from './protobuf.js';

/**
 * The number of an event in the log. All topics share one sequence that rises; position 0 is before the first event. Embedded engines
 * number events 1, 2, 3, and jetstream gives each message a range of its own (repository/jetstream/message.ts). A position is below 2^48,
 * which is enough for 100,000 events a second during 89 years, or on jetstream for 2^37 messages.
 */
export type Position = number;
export const MAX_POSITION = 2 ** 48 - 1;

/**
 * Six letters and digits that name the opening of a log during which a position was given out. Each opening makes a
 * new epoch at random, so a log and a copy of it, which may both give out position 1000, give it out with different
 * epochs.
 */
export type Epoch = string;

/**
 * An event's place in the log, to resume after. As text it is the position in 10 digits of base 32, then the epoch.
 * Position 1000 is 31 * 32 + 8, and the digits of 31 and 8 are z and 8:
 *
 *     formatCursor({ position: 1000, epoch: 'k3x9qz' }) === '00000000z8k3x9qz'
 */
export interface Cursor {
  readonly epoch: Epoch;
  readonly position: Position;
}

// Crockford's base 32: it leaves out letters that look like digits, and its texts sort as the numbers do.
const DIGITS = '0123456789abcdefghjkmnpqrstvwxyz';
const DIGIT_CODES = Buffer.from(DIGITS);
/** The value of each digit's character code; -1 for any other character. */
const VALUES = new Int8Array(256).fill(-1);
for (let value = 0; value < 32; value++) VALUES[DIGIT_CODES[value]] = value;

// The position comes first, so that the texts of cursors sort in the order of the log.
const POSITION_CHARS = 10;
const EPOCH_CHARS = 6;
export const CURSOR_BYTES = EPOCH_CHARS + POSITION_CHARS;
const CURSOR = new RegExp(`^[${DIGITS}]{${CURSOR_BYTES}}$`);

/** The size of Event.cursor, the last field of each stored event: a tag, a length, and the cursor's 16 characters. */
export const CURSOR_FIELD_BYTES = 2 + CURSOR_BYTES;
export const CURSOR_FIELD = 5;
/** The most that a producer's cursor takes as a field: clients may rely on 40 characters (docs/protocol.md, "Names"). */
export const MAX_CURSOR_FIELD_BYTES = 2 + 40;
const CURSOR_TAG = (CURSOR_FIELD << 3) | BYTES;

/** Makes an epoch of 30 random bits: 5 bits for each character. */
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

/** Reads the text that formatCursor() makes. Returns undefined for any other text. */
export function parseCursor(text: string): Cursor | undefined {
  if (!CURSOR.test(text)) return undefined;
  let position = 0;
  for (let i = 0; i < POSITION_CHARS; i++) position = position * 32 + VALUES[text.charCodeAt(i)];
  return position > MAX_POSITION ? undefined : { epoch: text.slice(POSITION_CHARS), position };
}

/** Writes the tag and the length of a cursor field. stampCursors() writes its characters later. */
export function reserveCursor(target: Buffer, offset: number): void {
  target[offset] = CURSOR_TAG;
  target[offset + 1] = CURSOR_BYTES;
}

/** The cursor that stampCursors() writes next. */
const scratch = Buffer.alloc(CURSOR_BYTES);

/**
 * Writes the cursors of framed events, each of which ends in a field that reserveCursor() made. The first event gets
 * the position `first`, and each other event the position after the one before it.
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
  // The position is split into two halves of 5 digits (25 bits), because JavaScript's shifts work on 32 bits.
  let high = Math.floor(position / 2 ** 25);
  let low = position % 2 ** 25;
  for (let i = 9; i >= 5; i--, low >>>= 5) target[i] = DIGIT_CODES[low & 31];
  for (let i = 4; i >= 0; i--, high >>>= 5) target[i] = DIGIT_CODES[high & 31];
}

/** Adds 1 to the position of an encoded cursor, in place. Mostly only the last digit of the position changes. */
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
