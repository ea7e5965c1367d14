import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CURSOR_FIELD_BYTES,
  epochOf,
  formatCursor,
  MAX_POSITION,
  parseCursor,
  reserveCursor,
  stampCursors,
} from '../../src/wire/cursor.js';
import { eventsIn, framed, encodeEvent } from './events.js';

const epochs = fc.integer({ min: 0, max: 2 ** 30 - 1 }).map(epochOf);
const positions = fc.oneof(
  fc.integer({ min: 0, max: MAX_POSITION }),
  // Positions around the carry of each digit.
  fc
    .tuple(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 1, max: 31 }), fc.nat(4))
    .map(([digit, times, back]) => Math.min(MAX_POSITION, times * 32 ** digit - back))
    .filter((position) => position >= 0),
);
const cursors = fc.record({ epoch: epochs, position: positions });

describe('a cursor', () => {
  it('is read back as it was written, printable, within 40 characters', () => {
    fc.assert(
      fc.property(cursors, (cursor) => {
        const text = formatCursor(cursor);
        expect(text).toMatch(/^[0-9a-z]{1,40}$/);
        expect(parseCursor(text)).toEqual(cursor);
      }),
    );
    for (const position of [0, 1, MAX_POSITION]) {
      expect(parseCursor(formatCursor({ epoch: '000000', position }))?.position).toBe(position);
    }
  });

  it('is its position in base 32, then its epoch', () => {
    const text = formatCursor({ position: 1000, epoch: 'k3x9qz' });
    expect(text).toBe('00000000z8k3x9qz');
  });

  it('sorts as text in the order of its position', () => {
    fc.assert(
      fc.property(epochs, positions, positions, (epoch, a, b) => {
        const textA = formatCursor({ epoch, position: a });
        const textB = formatCursor({ epoch, position: b });
        expect(Math.sign(Buffer.compare(Buffer.from(textA), Buffer.from(textB)))).toBe(
          Math.sign(a - b),
        );
      }),
    );
  });

  it('differs from a cursor of another epoch', () => {
    fc.assert(
      fc.property(fc.nat(2 ** 30 - 1), fc.nat(2 ** 30 - 1), (a, b) => {
        expect(epochOf(a) === epochOf(b)).toBe(a === b);
      }),
    );
  });
});

describe('any other text', () => {
  const written = 'abcdef0000000001';

  it.each([
    ['nothing', ''],
    ['one character less', written.slice(1)],
    ['one character more', `${written}0`],
    ['a line end', `${written}\n`],
    ['white space', ` ${written}`],
    ['capitals', written.toUpperCase()],
    ['letters that look like digits', 'abcdef000000000o'],
    ['an epoch with such letters', 'ibcdef0000000001'],
    ['a character beyond Latin-1', 'abcdef000000000\u0130'],
    ['a position over the last', 'abcdefzzzzzzzzzz'],
    ['the position after the last', 'abcdef8000000000'],
  ])('is refused: %s', (_what, text) => {
    expect(parseCursor(text)).toBeUndefined();
  });

  it('is refused, or is exactly the text of the cursor that it is read as', () => {
    const close = fc
      .tuple(cursors, fc.nat(15), fc.string({ unit: 'binary', maxLength: 2 }))
      .map(([cursor, at, junk]) => {
        const text = formatCursor(cursor);
        return text.slice(0, at) + junk + text.slice(at + junk.length);
      });
    const alphabet = fc.constantFrom(...'0123456789abcdefghijklmnopqrstuvwxyz'.split(''));
    const alike = fc.string({ unit: alphabet, minLength: 16, maxLength: 16 });
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), close, alike), (text) => {
        const cursor = parseCursor(text);
        expect(cursor ? formatCursor(cursor) : text).toBe(text);
      }),
      { numRuns: 1_000 },
    );
  });
});

describe('the cursors of a batch', () => {
  it('count up from the first, over every carry', () => {
    fc.assert(
      fc.property(cursors, fc.integer({ min: 1, max: 80 }), ({ epoch, position }, wanted) => {
        const count = Math.min(wanted, MAX_POSITION - position + 1);
        const room = Buffer.alloc(CURSOR_FIELD_BYTES);
        reserveCursor(room, 0);
        const frames = framed(
          ...Array.from({ length: count }, (_, i) =>
            Buffer.concat([encodeEvent({ body: 'x'.repeat(i) }), room]),
          ),
        );
        stampCursors(frames, epoch, position);
        expect(eventsIn(frames)).toEqual(
          Array.from({ length: count }, (_, i) => ({
            id: '',
            topic: '',
            attributes: {},
            body: 'x'.repeat(i),
            at: null,
            cursor: formatCursor({ epoch, position: position + i }),
          })),
        );
      }),
      { numRuns: 200 },
    );
  });
});
