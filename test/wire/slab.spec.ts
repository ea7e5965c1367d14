import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { allocate, concatenate } from '../../src/wire/slab.js';

const SLAB_BYTES = 8 * 1024;

describe('memory for events', () => {
  it('is never given out twice', () => {
    const sizes = fc.oneof(
      { weight: 20, arbitrary: fc.nat(2_000) },
      fc.integer({ min: SLAB_BYTES / 8 - 2, max: SLAB_BYTES / 8 + 2 }),
      fc.nat(SLAB_BYTES),
    );
    fc.assert(
      fc.property(fc.array(sizes, { maxLength: 60 }), (wanted) => {
        const given = wanted.map((bytes, i) => {
          const buffer = allocate(bytes);
          expect(buffer.length).toBe(bytes);
          return buffer.fill(i);
        });
        given.forEach((buffer, i) => expect(buffer.every((byte) => byte === i)).toBe(true));
      }),
      { numRuns: 30 },
    );
  });

  it('comes from shared slabs for small buffers, and not for large ones', () => {
    for (let i = 0; i < 100; i++) expect(allocate(100).buffer.byteLength).toBe(SLAB_BYTES);
    expect(allocate(100_000).buffer.byteLength).toBe(100_000);
  });

  it('holds a copy of the parts that are concatenated into it', () => {
    const parts = ['a', '', 'bc', 'x'.repeat(50_000)].map((text) => Buffer.from(text));
    const whole = concatenate(parts, allocate(50_003));
    expect(whole).toEqual(Buffer.concat(parts));
    parts[0].fill('z');
    expect(whole[0]).toBe(0x61);
  });
});
