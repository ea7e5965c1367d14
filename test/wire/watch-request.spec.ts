import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BadMessageError } from '../../src/wire/frames.js';
import { readWatchRequest } from '../../src/wire/watch-request.js';
import { codec } from '../support/client.js';
import { bytesField, tag, varint, varintField } from './events.js';

const time = fc.record({
  seconds: fc.oneof(
    fc.integer({ min: -62_135_596_800, max: 253_402_300_799 }),
    fc.maxSafeInteger(),
  ),
  nanos: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
});
const start = fc.oneof(
  fc.constant({}),
  fc.record({ afterCursor: fc.string() }),
  fc.record({ position: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }) as fc.Arbitrary<0> }),
  fc.record({ since: time }),
  fc.record({ last: fc.integer({ min: 0, max: 2 ** 32 - 1 }) }),
);
const request = fc.record({
  topic: fc.string({ unit: 'binary' }),
  topics: fc.array(fc.string({ unit: 'binary' }), { maxLength: 4 }),
  skipRemoved: fc.boolean(),
  heartbeat: fc.option(time, { nil: undefined }),
});

describe('a watch request', () => {
  it('is read as protobuf.js reads it', () => {
    fc.assert(
      fc.property(request, start, (common, from) => {
        const message = codec.watchRequest.serialize({ ...common, ...from });
        const { topic, topics, heartbeat, skipRemoved, ...others } =
          codec.watchRequest.deserialize(message);
        const theirs = Object.fromEntries(
          Object.entries(others).filter(([name]) => Object.hasOwn(from, name)),
        );
        expect(readWatchRequest(message)).toEqual({
          topics: topic === '' && topics.length > 0 ? topics : [topic, ...topics],
          heartbeat: heartbeat ?? undefined,
          skipRemoved,
          ...theirs,
        });
      }),
    );
  });

  it('that has a start or a topic twice takes the last of each', () => {
    const message = Buffer.concat([
      bytesField(1, 'first'),
      bytesField(2, 'cursor'),
      varintField(3, 1),
      bytesField(1, 'second'),
      varintField(5, 7),
    ]);
    expect(readWatchRequest(message)).toEqual({
      topics: ['second'],
      last: 7,
      skipRemoved: false,
    });
  });

  it('has its numbers truncated to 32 bits, as protobuf does, also from ten bytes', () => {
    expect(readWatchRequest(varintField(3, -3n)).position).toBe(-3);
    expect(readWatchRequest(varintField(5, -1n)).last).toBe(2 ** 32 - 1);
    const wide = Buffer.concat([tag(5, 0), varint(2 ** 34 + 5)]);
    expect(readWatchRequest(wide).last).toBe(5);
    const ofTen = Buffer.concat([tag(5, 0), varint(-(2n ** 62n) + 9n)]);
    expect(readWatchRequest(ofTen).last).toBe(9);
  });

  it.each<[string, Buffer]>([
    ['topic has the wrong wire type', varintField(1, 1)],
    ['after_cursor is not valid UTF-8', bytesField(2, Buffer.from([0xff]))],
    ['position is out of range', Buffer.concat([tag(3, 0), varint(1, 6)])],
    ['topics is not valid UTF-8', bytesField(7, Buffer.from([0xff]))],
    ['skip_removed has the wrong wire type', bytesField(8, 'x')],
    ['last is out of range', Buffer.concat([tag(5, 0), varint(1, 9)])],
    ['since has a field of the wrong wire type', bytesField(4, bytesField(1, 'x'))],
    ['heartbeat is out of range', bytesField(6, Buffer.concat([tag(2, 0), varint(1, 7)]))],
    ['since is not well-formed: it ends inside a field', bytesField(4, tag(1, 0))],
    ['it is not well-formed protobuf: it ends inside a field', tag(9, 2)],
  ])('is refused where %s', (problem, message) => {
    expect(() => readWatchRequest(message)).toThrow(new BadMessageError(problem));
  });
});
