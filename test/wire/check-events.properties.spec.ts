import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EventChecker } from '../../src/wire/check-events.js';
import { formatCursor, stampCursors } from '../../src/wire/cursor.js';
import {
  bytesField,
  decodeEvent,
  encodeEvent,
  framed,
  received,
  tag,
  unframed,
  varint,
  varintField,
  type WireEvent,
} from './events.js';

const EPOCH = 'abcdef';
const UUID = /^[0-9a-f-]{36}$/;

const topics = fc
  .array(
    fc
      .string({ unit: 'binary', minLength: 1, maxLength: 12 })
      .filter((token) => !/[\s\p{Cc}*>.]/u.test(token)),
    { minLength: 1, maxLength: 4 },
  )
  .map((tokens) => tokens.join('.'));

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.string({ unit: 'binary', minLength: 40, maxLength: 300 }),
);

const moments = fc.record({
  seconds: fc.integer({ min: -62135596800, max: 253402300799 }),
  nanos: fc.integer({ min: 0, max: 999_999_999 }),
});

const attributes = fc
  .array(fc.tuple(fc.string({ minLength: 1, maxLength: 20 }), fc.string({ maxLength: 40 })), {
    maxLength: 5,
  })
  // An object takes this name for its prototype.
  .map((pairs) => Object.fromEntries(pairs.filter(([name]) => name !== '__proto__')));

/** The events that a producer may send: each field except the topic may be missing. */
const events = fc.record(
  { id: text, topic: topics, body: text, at: moments, cursor: text, attributes },
  { requiredKeys: ['topic'] },
);

const unknownFields = fc.oneof(
  fc
    .tuple(fc.integer({ min: 7, max: 2 ** 29 - 1 }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }))
    .map(([number, value]) => varintField(number, value)),
  fc
    .tuple(fc.integer({ min: 7, max: 2 ** 29 - 1 }), fc.uint8Array({ maxLength: 50 }))
    .map(([number, value]) => bytesField(number, value)),
  fc
    .tuple(fc.integer({ min: 7, max: 2 ** 29 - 1 }), fc.uint8Array({ minLength: 8, maxLength: 8 }))
    .map(([number, value]) => Buffer.concat([tag(number, 1), value])),
);

/** An event and its bytes, with known and unknown fields in any order. */
const encoded = fc
  .tuple(events, fc.array(unknownFields, { maxLength: 3 }))
  .chain(([event, unknown]) => {
    const known = Object.entries(event).map(([name, value]) => encodeEvent({ [name]: value }));
    const fields = [...known, ...unknown];
    return fc
      .shuffledSubarray(fields, { minLength: fields.length })
      .map((order) => ({ event, unknown, bytes: Buffer.concat(order) }));
  });

describe('any valid event', () => {
  it('decodes to the same event with the right cursor, in any field order', () => {
    fc.assert(
      fc.property(
        fc.array(encoded, { minLength: 1, maxLength: 12 }),
        fc.array(fc.nat(12), { maxLength: 3 }),
        fc.integer({ min: 1, max: 2 ** 48 - 200 }),
        (sent, cuts, first) => {
          const checker = new EventChecker();
          const ends = [...cuts, sent.length].toSorted((a, b) => a - b);
          const before = Date.now();
          const taken = checker.check({
            pieces: ends.map((end, i) =>
              framed(...sent.slice(i === 0 ? 0 : ends[i - 1], end).map(({ bytes }) => bytes)),
            ),
          });
          expect(checker.problem).toBeUndefined();
          expect(taken.count).toBe(sent.length);
          for (const { topic, bytes, count } of taken.topics) {
            stampCursors(bytes, EPOCH, first);
            const messages = unframed(bytes);
            const expected = sent.filter(({ event }) => event.topic === topic);
            expect(messages.length).toBe(expected.length);
            expect(count).toBe(expected.length);
            messages.forEach((message, i) => {
              const stored = decodeEvent(message);
              sameEvent(stored, expected[i].event, before);
              expect(stored.cursor).toBe(formatCursor({ epoch: EPOCH, position: first + i }));
              for (const field of expected[i].unknown) expect(message.includes(field)).toBe(true);
            });
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

function sameEvent(stored: WireEvent, sent: Partial<WireEvent>, before: number): void {
  expect(stored).toMatchObject({ topic: sent.topic, body: sent.body ?? '' });
  expect(sent.id || UUID.exec(stored.id)?.[0]).toBe(stored.id);
  const { seconds, nanos } = stored.at!;
  expect(sent.at ?? { seconds, nanos }).toEqual({ seconds, nanos });
  const milliseconds = seconds * 1000 + nanos / 1e6;
  expect(!!sent.at || (milliseconds >= before && milliseconds <= Date.now())).toBe(true);
}

/** Makes almost valid protobuf: fields, types, lengths and numbers that are right or wrong, and varints that are too long. */
function nearlyProtobuf(maxDepth: number): fc.Arbitrary<Buffer> {
  const width = fc.oneof({ weight: 9, arbitrary: fc.constant(1) }, fc.integer({ min: 1, max: 11 }));
  const number = fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: 1, max: 6 }) },
    fc.constantFrom(0, 2 ** 29 - 1, 2 ** 29),
  );
  const value = fc.oneof(
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.nat(2_000_000_000).map(BigInt),
  );
  const payload = fc.oneof(
    fc.uint8Array({ maxLength: 70 }),
    topics.map((topic) => Buffer.from(topic)),
    ...(maxDepth > 0 ? [nearlyProtobuf(maxDepth - 1)] : []),
  );
  const numbers = fc
    .tuple(number, width, value, width)
    .map(([n, tagWidth, v, valueWidth]) =>
      Buffer.concat([varint(n * 8, tagWidth), varint(v, valueWidth)]),
    );
  const bytes = fc
    .tuple(number, width, payload, width, fc.constantFrom(0, 0, 0, 0, 0, 0, 1, -1))
    .map(([n, tagWidth, p, lengthWidth, wrong]) =>
      Buffer.concat([
        varint(n * 8 + 2, tagWidth),
        varint(Math.max(0, p.length + wrong), lengthWidth),
        p,
      ]),
    );
  const others = fc
    .tuple(number, fc.constantFrom(1, 3, 4, 5, 6, 7), fc.uint8Array({ maxLength: 8 }))
    .map(([n, type, p]) => Buffer.concat([tag(n, type), p]));
  return fc
    .array(
      fc.oneof(
        { weight: 3, arbitrary: numbers },
        { weight: 9, arbitrary: bytes },
        { weight: 1, arbitrary: others },
      ),
      { maxLength: 4 },
    )
    .map((fields) => Buffer.concat(fields));
}

const withTopic = nearlyProtobuf(1).map((bytes) => Buffer.concat([bytesField(2, 't'), bytes]));

describe('any bytes', () => {
  it.each([
    ['random', fc.uint8Array({ maxLength: 200 }), 0],
    ['nearly protobuf', nearlyProtobuf(1), 1],
    ['nearly protobuf, with a topic', withTopic, 100],
  ] as const)('that are %s are refused, or stored as a valid event', (_what, bytes, atLeast) => {
    let taken = 0;
    fc.assert(
      fc.property(bytes, (message) => {
        const checker = new EventChecker();
        const { topics: groups, count } = checker.check(received(message));
        expect(count).toBe(checker.problem ? 0 : 1);
        if (checker.problem) return;
        taken++;
        stampCursors(groups[0].bytes, EPOCH, 1);
        const [stored] = unframed(groups[0].bytes);
        const event = decodeEvent(stored);
        expect(event.topic).toBe(groups[0].topic);
        expect(event.id).not.toBe('');
        expect(event.cursor).toBe(formatCursor({ epoch: EPOCH, position: 1 }));
        // The stored bytes are a good event themselves.
        const again = new EventChecker();
        again.check(received(stored));
        expect(again.problem).toBeUndefined();
      }),
      { numRuns: 3_000 },
    );
    expect(taken).toBeGreaterThanOrEqual(atLeast); // else, the test would prove nothing
  });

  it('do not change how the events after them are read', () => {
    const checker = new EventChecker();
    fc.assert(
      fc.property(fc.oneof(nearlyProtobuf(1), withTopic), encoded, (junk, { event, bytes }) => {
        checker.problem = undefined;
        checker.check(received(junk));
        checker.problem = undefined;
        const { topics: groups } = checker.check(received(bytes));
        expect(checker.problem).toBeUndefined();
        stampCursors(groups[0].bytes, EPOCH, 1);
        sameEvent(decodeEvent(unframed(groups[0].bytes)[0]), event, 0);
      }),
      { numRuns: 500 },
    );
  });
});
