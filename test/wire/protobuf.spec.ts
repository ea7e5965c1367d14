import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bytesField,
  FieldReader,
  varintBytes,
  VARINT,
  writeVarint,
} from '../../src/wire/protobuf.js';
import * as ours from './events.js';

const numbers = fc.oneof(
  fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  fc.integer({ min: 0, max: 7 }).chain((bytes) => {
    const edge = 2 ** (7 * bytes);
    return fc.constantFrom(edge - 1, edge, edge + 1);
  }),
);

describe('varints', () => {
  it('are written as protobuf says', () => {
    fc.assert(
      fc.property(numbers, (value) => {
        const target = Buffer.alloc(12, 0xee);
        const end = writeVarint(target, 1, value);
        expect(target.subarray(1, end)).toEqual(ours.varint(value));
        expect(end - 1).toBe(varintBytes(value));
      }),
    );
  });

  it('are read back up to 2^53, also when they have redundant bytes', () => {
    const reader = new FieldReader();
    fc.assert(
      fc.property(numbers, fc.integer({ min: 1, max: 10 }), (value, width) => {
        const field = Buffer.concat([ours.tag(1, VARINT), ours.varint(value, width)]);
        reader.read(field, 0, field.length);
        expect(reader.next()).toBe(true);
        expect(reader.varint()).toBe(value);
        expect(reader.next()).toBe(false);
        expect(reader.problem).toBeUndefined();
      }),
    );
  });

  it('are read as signed, as an int64 is', () => {
    const reader = new FieldReader();
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: -1n }), (value) => {
        const field = ours.varintField(1, value);
        reader.read(field, 0, field.length);
        reader.next();
        expect(reader.varint()).toBe(Number(value));
      }),
    );
  });
});

describe('a field of bytes', () => {
  it('is written as protobuf says', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 15 }), fc.uint8Array({ size: 'large' }), (n, value) => {
        expect(bytesField(n, value)).toEqual(ours.bytesField(n, value));
      }),
    );
  });
});

describe('the fields of a message', () => {
  it('are found within its bounds, whatever bytes surround it', () => {
    const reader = new FieldReader();
    const message = Buffer.concat([ours.varintField(1, 300), ours.bytesField(70_000, 'abc')]);
    const buffer = Buffer.concat([Buffer.alloc(3, 0xff), message, Buffer.alloc(3, 0xff)]);
    reader.read(buffer, 3, 3 + message.length);
    const found = [];
    while (reader.next()) {
      found.push([reader.field, reader.type, buffer.toString('hex', reader.start, reader.end)]);
      expect(buffer.subarray(reader.tagStart, reader.start)[0]).not.toBe(0xff);
    }
    expect(found).toEqual([
      [1, 0, 'ac02'],
      [70_000, 2, '616263'],
    ]);
    expect(reader.problem).toBeUndefined();
  });

  it('of one message do not affect how the next is read', () => {
    const reader = new FieldReader();
    reader.read(Buffer.from([0]), 0, 1);
    expect(reader.next()).toBe(false);
    expect(reader.problem).toBeDefined();
    reader.read(Buffer.alloc(0), 0, 0);
    expect(reader.next()).toBe(false);
    expect(reader.problem).toBeUndefined();
  });
});
