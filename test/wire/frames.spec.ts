import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cutAfter } from '../../src/wire/event-batch.js';
import { frame, frameLength, messagesIn, writeFrameHeader } from '../../src/wire/frames.js';
import { framed, unframed } from './events.js';

const messages = fc.array(
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  {
    maxLength: 10,
  },
);

describe('frames', () => {
  it('are written and read as gRPC specifies', () => {
    fc.assert(
      fc.property(messages, (sent) => {
        expect(Buffer.concat(sent.map(frame))).toEqual(framed(...sent));
        expect([...messagesIn(framed(...sent))]).toEqual(sent);
      }),
    );
  });

  it.each([0, 1, 255, 256, 65_536, 2 ** 24, 2 ** 31, 2 ** 32 - 1])(
    'have a header that holds a length of %i',
    (length) => {
      const header = Buffer.alloc(7, 0xee);
      writeFrameHeader(header, 1, length);
      expect(header.readUInt8(1)).toBe(0);
      expect(header.readUInt32BE(2)).toBe(length);
      expect(frameLength(header, 1)).toBe(length);
      expect([header[0], header[6]]).toEqual([0xee, 0xee]);
    },
  );
});

describe('a run cut after a position', () => {
  it('holds the events strictly after it', () => {
    const runs = fc.tuple(
      messages.filter(({ length }) => length > 0),
      fc.integer({ min: 1, max: 2 ** 48 }),
    );
    fc.assert(
      fc.property(runs, ([sent, first]) => {
        const last = first + sent.length - 1;
        for (let position = first - 1; position <= last; position++) {
          const rest = cutAfter(
            { bytes: framed(...sent), count: sent.length, first, last },
            position,
          );
          const expected = sent.slice(position - first + 1);
          expect(unframed(rest.bytes)).toEqual(expected);
          expect(rest.count).toBe(expected.length);
          expect(rest.last).toBe(last);
        }
      }),
      { numRuns: 50 },
    );
  });
});
