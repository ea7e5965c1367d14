import { isUtf8 } from 'node:buffer';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isValidUtf8 } from '../../src/wire/utf8.js';

/** From this length on, src/wire/utf8.ts uses node's check instead of its own loop. */
const LOOP_BYTES = 64;

describe('isValidUtf8', () => {
  const ascii = fc.constantFrom(0x00, 0x41, 0x7f);
  const around = fc.integer({ min: LOOP_BYTES - 3, max: LOOP_BYTES + 3 });
  const pieces = fc.oneof(
    fc.uint8Array({ maxLength: 3 * LOOP_BYTES }),
    // ASCII text about as long as LOOP_BYTES, with one byte anywhere that is not ASCII.
    fc
      .tuple(around, ascii, fc.nat(LOOP_BYTES + 3), fc.integer({ min: 0x80, max: 0xff }))
      .map(([length, fill, at, byte]) => {
        const bytes = new Uint8Array(length).fill(fill);
        if (at < length) bytes[at] = byte;
        return bytes;
      }),
    // Text that may be cut inside a character.
    fc
      .tuple(fc.string({ unit: 'binary', maxLength: 30 }), fc.nat(120))
      .map(([text, end]) => new Uint8Array(Buffer.from(text).subarray(0, end))),
  );

  it("agrees with node, within a buffer's bounds", () => {
    fc.assert(
      fc.property(pieces, fc.nat(5), fc.nat(5), (piece, before, after) => {
        const buffer = Buffer.concat([
          Buffer.alloc(before, 0xff),
          piece,
          Buffer.alloc(after, 0xff),
        ]);
        expect(isValidUtf8(buffer, before, before + piece.length)).toBe(isUtf8(piece));
      }),
      { numRuns: 3_000 },
    );
  });

  it('is true of no bytes', () => {
    expect(isValidUtf8(Buffer.from([0xff]), 0, 0)).toBe(true);
  });
});
