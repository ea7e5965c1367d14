import { afterEach, describe, expect, it, vi } from 'vitest';
import { RUN_BYTES } from '../../src/wire/event-batch.js';
import { EventChecker, MAX_GROUPS } from '../../src/wire/check-events.js';
import { stampCursors } from '../../src/wire/cursor.js';
import {
  bytesField,
  encodeEvent,
  eventsIn,
  framed,
  received,
  tag,
  unframed,
  varint,
  varintField,
  type WireEvent,
  withoutCursor,
} from './events.js';

const AT = { seconds: 1_700_000_000, nanos: 5 };
const GOOD: Partial<WireEvent> = { id: 'a', topic: 't', body: 'hello', at: AT };
const good = encodeEvent(GOOD);
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

function problemOf(...messages: Uint8Array[]): string | undefined {
  const checker = new EventChecker();
  const { count } = checker.check(received(...messages));
  expect(count).toBe(checker.problem ? checker.problem.index : messages.length);
  return checker.problem?.problem;
}

/** Returns the bytes of a checked event before its cursor is filled in. */
function taken(message: Uint8Array): Buffer {
  const checker = new EventChecker();
  const { topics } = checker.check(received(message));
  expect(checker.problem).toBeUndefined();
  return unframed(topics[0].bytes)[0];
}

/** Returns a checked event as a reader sees it. */
function stored(message: Uint8Array): WireEvent {
  const { topics } = new EventChecker().check(received(message));
  stampCursors(topics[0].bytes, 'abcdef', 1);
  return eventsIn(topics[0].bytes)[0];
}

const withAt = (at: Buffer) => Buffer.concat([encodeEvent({ topic: 't' }), bytesField(4, at)]);
const timestamp = (seconds: bigint | number, nanos: bigint | number) =>
  Buffer.concat([varintField(1, seconds), varintField(2, nanos)]);

afterEach(() => vi.restoreAllMocks());

describe('well-formed protobuf', () => {
  it.each([
    ['an empty event', Buffer.alloc(0), /topic is missing/],
    ['a tag cut short', Buffer.concat([good, Buffer.from([0x80])]), /ends inside a field/],
    ['a length cut short', Buffer.concat([good, tag(9, 2)]), /ends inside a field/],
    ['a long length cut short', Buffer.concat([good, tag(9, 2), Buffer.from([0x80])]), /ends/],
    ['bytes cut short', bytesField(9, 'abc').subarray(0, 4), /ends inside a field/],
    ['a number cut short', Buffer.concat([good, tag(9, 0), Buffer.from([0xff])]), /ends/],
    ['a fixed64 cut short', Buffer.concat([good, tag(9, 1), Buffer.alloc(7)]), /ends/],
    ['a fixed32 cut short', Buffer.concat([good, tag(9, 5), Buffer.alloc(3)]), /ends/],
    ['field 0', Buffer.concat([good, varintField(0, 1)]), /field number 0/],
    ['field 0 as bytes', Buffer.concat([good, bytesField(0, 'x')]), /field number 0/],
    ['a group', Buffer.concat([good, tag(9, 3), tag(9, 4)]), /group/],
    ['the end of a group', Buffer.concat([good, tag(9, 4)]), /group/],
    ['wire type 6', Buffer.concat([good, tag(9, 6)]), /wire type/],
    ['wire type 7', Buffer.concat([good, tag(9, 7)]), /wire type/],
    ['a tag over 32 bits', Buffer.concat([good, varint(2n ** 32n + 8n), varint(1)]), /number/],
    ['a tag of six bytes', Buffer.concat([good, varint(9 * 8, 6), varint(1)]), /number/],
    ['a number of 11 bytes', Buffer.concat([good, tag(9, 0), varint(1, 11)]), /too long/],
    ['a length over 2^53', Buffer.concat([good, tag(9, 2), varint(2n ** 62n)]), /./],
  ])('%s is refused', (_what, message, problem) => {
    expect(problemOf(message)).toMatch(problem);
  });

  it.each([1, 2, 3, 4, 5])('field %i of each wrong wire type is refused', (number) => {
    const others = encodeEvent(number === 2 ? {} : { topic: 't' });
    for (const value of [
      varintField(number, 1),
      Buffer.concat([tag(number, 1), Buffer.alloc(8)]),
      Buffer.concat([tag(number, 5), Buffer.alloc(4)]),
    ]) {
      expect(problemOf(Buffer.concat([others, value]))).toMatch(/wrong wire type/);
    }
    expect(problemOf(Buffer.concat([others, tag(number, 3), tag(number, 4)]))).toBeDefined();
  });

  it.each([
    ['id', encodeEvent({ id: 'b' })],
    ['topic', encodeEvent({ topic: 't' })],
    ['body', encodeEvent({ body: 'x' })],
    ['at', encodeEvent({ at: AT })],
    ['cursor', encodeEvent({ cursor: 'x' })],
  ])('%s twice is refused', (name, again) => {
    const once = encodeEvent({ ...GOOD, cursor: 'c' });
    expect(problemOf(Buffer.concat([once, again]))).toBe(`${name} is there twice`);
  });

  it('a length of more than five bytes is refused: C++ refuses it, and protobuf.js misreads it', () => {
    const body = Buffer.concat([tag(3, 2), varint(5, 6), Buffer.from('hello')]);
    expect(problemOf(Buffer.concat([encodeEvent({ topic: 't' }), body]))).toBeDefined();
  });

  it('a number over 64 bits is refused: Go refuses it', () => {
    const number = Buffer.concat([Buffer.alloc(9, 0xff), Buffer.from([0x02])]);
    expect(problemOf(Buffer.concat([good, tag(9, 0), number]))).toBeDefined();
  });

  it('a number of 64 bits is kept', () => {
    expect(problemOf(Buffer.concat([good, varintField(9, -1)]))).toBeUndefined();
  });
});

describe('UTF-8', () => {
  const broken = [
    Buffer.from([0xff]),
    Buffer.from([0xc3]), // cut short
    Buffer.from([0xc0, 0x80]), // overlong
    Buffer.from([0xed, 0xa0, 0x80]), // a surrogate
    Buffer.from([0xf4, 0x90, 0x80, 0x80]), // over U+10FFFF
    Buffer.concat([Buffer.alloc(100, 'a'), Buffer.from([0x80])]),
  ];
  it.each(['id', 'topic', 'body'])('a broken %s is refused', (name) => {
    const number = ['', 'id', 'topic', 'body'].indexOf(name);
    const others = encodeEvent(number === 2 ? {} : { topic: 't' });
    for (const bytes of broken) {
      expect(problemOf(Buffer.concat([others, bytesField(number, bytes)]))).toBe(
        `${name} is not valid UTF-8`,
      );
    }
  });

  it('strings of one to four bytes a character come through', () => {
    const text = 'aé€🙂\u0000\uffff';
    expect(stored(encodeEvent({ id: text, topic: 'é€🙂', body: text }))).toMatchObject({
      id: text,
      topic: 'é€🙂',
      body: text,
    });
  });
});

describe('at', () => {
  it.each([
    ['the first moment', -62135596800, 0],
    ['the last moment', 253402300799, 999_999_999],
    ['before 1970', -1, 999_999_999],
    ['1970', 0, 0],
  ])('%s is taken', (_what, seconds, nanos) => {
    const message = withAt(timestamp(seconds, nanos));
    expect(problemOf(message)).toBeUndefined();
    expect(stored(message).at).toEqual({ seconds, nanos });
  });

  it.each([
    ['before year 1', -62135596801n, 0],
    ['after year 9999', 253402300800n, 0],
    ['the smallest int64', -(2n ** 63n), 0],
    ['the largest int64', 2n ** 63n - 1n, 0],
    ['nanos of a whole second', 0, 1_000_000_000],
    ['negative nanos', 0, -1],
    // A reader that takes the low 32 bits would see 5.
    ['nanos over 32 bits', 0, 2n ** 32n + 5n],
    ['nanos over 2^53', 0, 2n ** 60n],
  ])('%s is refused', (_what, seconds, nanos) => {
    expect(problemOf(withAt(timestamp(seconds, nanos)))).toMatch(/range of a Timestamp/);
  });

  it.each([
    ['seconds of a wrong type', Buffer.concat([tag(1, 1), Buffer.alloc(8)]), /wrong wire type/],
    ['nanos of a wrong type', bytesField(2, 'x'), /wrong wire type/],
    ['seconds twice', Buffer.concat([varintField(1, 1), varintField(1, 1)]), /twice/],
    ['nanos twice', Buffer.concat([varintField(2, 1), varintField(2, 1)]), /twice/],
    ['a group', Buffer.concat([tag(3, 3), tag(3, 4)]), /not well-formed/],
    ['field 0', varintField(0, 1), /not well-formed/],
    ['seconds cut short', tag(1, 0), /not well-formed/],
    ['a number that ends outside', Buffer.concat([tag(2, 0), Buffer.from([0x80])]), /well-formed/],
  ])('%s is refused', (_what, at, problem) => {
    // The field after the timestamp must not be read as a part of it.
    expect(problemOf(Buffer.concat([withAt(at), bytesField(3, '\u0001')]))).toMatch(problem);
  });

  it('nanos of more than five bytes are refused: protobuf.js misreads them', () => {
    const at = Buffer.concat([varintField(1, 7), tag(2, 0), varint(5, 6)]);
    expect(problemOf(Buffer.concat([withAt(at), bytesField(3, 'hello')]))).toBeDefined();
  });

  it('an empty one is 1970, not absent', () => {
    expect(stored(withAt(Buffer.alloc(0))).at).toEqual({ seconds: 0, nanos: 0 });
  });

  it('unknown fields in it are kept', () => {
    const at = Buffer.concat([varintField(1, 7), bytesField(3, 'new'), varintField(1000, 1)]);
    const message = Buffer.concat([encodeEvent({ id: 'a', topic: 't' }), bytesField(4, at)]);
    expect(withoutCursor(taken(message))).toEqual(message);
  });

  it.each([1_700_000_000_123, 1_700_000_000_000, 1_700_000_000_001, 0])(
    "is the server's clock where it is absent: %i",
    (now) => {
      vi.spyOn(Date, 'now').mockReturnValue(now);
      const { at } = stored(encodeEvent({ id: 'a', topic: 't', body: 'x' }));
      expect(at).toEqual({ seconds: Math.floor(now / 1000), nanos: (now % 1000) * 1e6 });
    },
  );
});

describe('topic', () => {
  it.each([
    ['missing', encodeEvent({ id: 'a' }), 'topic is missing'],
    ['empty', encodeEvent({ topic: '' }), 'topic: it is empty'],
    ['with a space', encodeEvent({ topic: 'a b' }), /topic: .*white space/],
    ['with a wildcard', encodeEvent({ topic: 'a.*' }), /topic: .*"\*"/],
    ['with an empty token', encodeEvent({ topic: 'a..b' }), /topic: .*empty token/],
    ['of 201 bytes', encodeEvent({ topic: 'a'.repeat(201) }), /topic: .*201 bytes/],
  ])('one %s is refused', (_what, message, problem) => {
    expect(problemOf(message)).toMatch(problem);
  });

  it('a bad one is refused after a good one that it begins with, or that begins with it', () => {
    for (const topic of ['', ' ', 't ', 't.', '.t', 'tt.']) {
      expect(problemOf(good, encodeEvent({ ...GOOD, topic }))).toMatch(/^topic: /);
    }
    expect(problemOf(good, encodeEvent({ ...GOOD, topic: 'tt' }), good)).toBeUndefined();
    const long = 'a'.repeat(200);
    expect(problemOf(encodeEvent({ topic: long }), encodeEvent({ topic: `${long}a` }))).toMatch(
      /201 bytes/,
    );
  });

  it('a bad one does not disturb what the checker remembers of the last good one', () => {
    const checker = new EventChecker();
    checker.check(received(good, encodeEvent({ topic: 'bad topic' })));
    const { topics } = checker.check(received(encodeEvent({ topic: 'u' }), good));
    expect(topics.map(({ topic }) => topic)).toEqual(['u', 't']);
  });
});

describe('what is stored', () => {
  it('is byte for byte what came in, with room for the cursor after it', () => {
    expect(withoutCursor(taken(good))).toEqual(good);
    expect(taken(good).subarray(good.length, good.length + 2)).toEqual(Buffer.from([0x2a, 16]));
  });

  it('keeps unknown fields of every wire type, in place', () => {
    const unknown = [
      varintField(9, 2n ** 63n),
      bytesField(7, Buffer.from([0xff, 0x00])), // not UTF-8, which only a string must be
      Buffer.concat([tag(8, 1), Buffer.from('12345678')]),
      Buffer.concat([tag(2 ** 29 - 1, 5), Buffer.from('1234')]),
      varintField(9, 1), // an unknown field may be a repeated one
    ];
    const message = Buffer.concat([unknown[0], good, ...unknown.slice(1)]);
    expect(withoutCursor(taken(message))).toEqual(message);

    const noIdNoTime = Buffer.concat([unknown[0], encodeEvent({ topic: 't' }), ...unknown]);
    const rebuilt = taken(noIdNoTime);
    expect(rebuilt.includes(noIdNoTime)).toBe(true);
  });

  it("has the server's cursor, and never the producer's", () => {
    for (const cursor of ['', 'x', 'zzzzzz0000000009', 'é'.repeat(500)]) {
      const first = Buffer.concat([encodeEvent({ cursor }), good]);
      const last = Buffer.concat([good, encodeEvent({ cursor })]);
      for (const message of [first, last]) {
        expect(withoutCursor(taken(message))).toEqual(good);
        expect(stored(message)).toEqual({
          ...GOOD,
          cursor: '0000000001abcdef',
          attributes: {},
        });
      }
    }
    // It is dropped before anybody reads it as a string.
    const broken = Buffer.concat([good, bytesField(5, Buffer.from([0xff]))]);
    expect(withoutCursor(taken(broken))).toEqual(good);
  });

  it('is made without an object for each unknown field, where a cursor or an empty id is dropped', () => {
    const unknown = Buffer.concat(Array.from({ length: 1_000 }, () => varintField(15, 1)));
    const parts = [
      unknown,
      bytesField(2, 't'),
      bytesField(1, ''),
      unknown,
      encodeEvent({ cursor: 'x' }),
      unknown,
    ];
    const source = received(Buffer.concat([...parts, encodeEvent({ at: AT })]));
    const pieces = vi.spyOn(Buffer.prototype, 'subarray');
    const { topics } = new EventChecker().check(source);
    expect(pieces.mock.calls.length).toBeLessThan(20);
    pieces.mockRestore();
    const [bytes] = unframed(topics[0].bytes);
    const kept = Buffer.concat([
      unknown,
      bytesField(2, 't'),
      unknown,
      unknown,
      encodeEvent({ at: AT }),
    ]);
    expect(withoutCursor(bytes).subarray(-kept.length)).toEqual(kept);
  });

  it('has a new id where the producer gave none, or an empty one', () => {
    const messages = [encodeEvent({ topic: 't' }), encodeEvent({ id: '', topic: 't', at: AT })];
    const ids = [...messages, ...messages].map((message) => stored(message).id);
    for (const id of ids) expect(id).toMatch(UUID);
    expect(new Set(ids).size).toBe(4);
    expect(stored(messages[1])).toMatchObject({ topic: 't', at: AT });
  });

  it('has each field exactly once', () => {
    const message = encodeEvent({ id: '', topic: 't', body: 'x', cursor: 'mine' });
    const { topics } = new EventChecker().check(received(taken(message)));
    expect(topics[0].count).toBe(1); // a checker refuses fields that are there twice
  });

  it('does not change with the buffer that it came in', () => {
    const source = received(good, encodeEvent({ topic: 't', id: 'b' }));
    const { topics } = new EventChecker().check(source);
    source.pieces[0].fill(0xff);
    stampCursors(topics[0].bytes, 'abcdef', 1);
    expect(eventsIn(topics[0].bytes).map(({ id }) => id)).toEqual(['a', 'b']);
  });
});

const of = (topic: string, id: string) => encodeEvent({ ...GOOD, topic, id });

describe('a batch', () => {
  it('is grouped by topic, in order within each', () => {
    const checker = new EventChecker();
    const events = checker.check({
      pieces: [
        framed(of('a', '1'), of('b', '2'), of('a', '3')),
        framed(of('c', '4'), of('b', '5'), of('a', '6'), of('b', '7')),
      ],
    });
    expect(
      events.topics.map(({ topic, count, bytes }) => {
        stampCursors(bytes, 'abcdef', 1);
        return [topic, count, ...eventsIn(bytes).map(({ id }) => id)];
      }),
    ).toEqual([
      ['a', 3, '1', '3', '6'],
      ['b', 3, '2', '5', '7'],
      ['c', 1, '4'],
    ]);
    expect(events.count).toBe(7);
    expect(events.topics[events.lastTopic].topic).toBe('b');
    expect(events.bytes).toBe(events.topics.reduce((sum, { bytes }) => sum + bytes.length, 0));
  });

  it('of many topics has the events of each together', () => {
    const topics = Array.from({ length: 30 }, (_, i) => `t${i}`);
    const events = [1, 2, 3].flatMap((id) => topics.map((topic) => of(topic, String(id))));
    const checker = new EventChecker();
    // Twice: what the checker remembers of one batch is of no use for the next one.
    for (let i = 0; i < 2; i++) {
      const batch = checker.check(received(...events));
      expect(batch.topics.map(({ topic, count }) => [topic, count])).toEqual(
        topics.map((topic) => [topic, 3]),
      );
      expect(batch.lastTopic).toBe(29);
    }
    expect(checker.check(received(of('t7', '4'))).topics).toMatchObject([
      { topic: 't7', count: 1 },
    ]);
  });

  it('may be empty', () => {
    const checker = new EventChecker();
    expect(checker.check({ pieces: [] })).toMatchObject({ topics: [], count: 0, bytes: 0 });
    expect(checker.check({ pieces: [Buffer.alloc(0), framed(good)] }).count).toBe(1);
    expect(checker.problem).toBeUndefined();
  });

  it('of thousands of events is split into buffers of at most RUN_BYTES, nearly full', () => {
    const ids = Array.from({ length: 5_000 }, (_, i) => String(i));
    const { topics, count } = new EventChecker().check(
      received(...ids.map((id, i) => encodeEvent({ ...GOOD, id, at: i % 2 ? AT : null }))),
    );
    expect(count).toBe(5_000);
    expect(topics.flatMap(({ bytes }) => eventsIn(bytes)).map(({ id }) => id)).toEqual(ids);
    for (const { bytes } of topics.slice(0, -1)) {
      expect(bytes.length).toBeLessThanOrEqual(RUN_BYTES);
      expect(bytes.length).toBeGreaterThan(0.9 * RUN_BYTES);
    }
  });

  it('has an event larger than RUN_BYTES in a buffer of its own', () => {
    const bodies = ['a', 'x'.repeat(2 * RUN_BYTES), 'b', 'c'];
    const { topics, lastTopic } = new EventChecker().check(
      received(...bodies.map((body) => encodeEvent({ ...GOOD, body }))),
    );
    expect(topics.map(({ count }) => count)).toEqual([1, 1, 2]);
    expect(lastTopic).toBe(2);
  });

  it('is taken up to its first bad event, counted over the whole upload', () => {
    const checker = new EventChecker();
    expect(checker.check(received(of('a', '0'), of('b', '1'))).count).toBe(2);
    expect(checker.check(received(of('a', '2'))).count).toBe(1);
    expect(checker.count).toBe(3);
    const bad = encodeEvent({ topic: 'not a topic' });
    const events = checker.check({
      pieces: [
        framed(of('a', '3'), of('c', '4')),
        framed(of('a', '5'), bad, of('d', '7')),
        framed(good),
      ],
    });
    expect(checker.problem).toEqual({ index: 6, problem: expect.stringMatching(/^topic: /) });
    expect(checker.count).toBe(6);
    expect(events.count).toBe(3);
    expect(
      events.topics.map(({ topic, bytes }) => [topic, eventsIn(bytes).map(({ id }) => id)]),
    ).toEqual([
      ['a', ['3', '5']],
      ['c', ['4']],
    ]);
    expect(events.topics[events.lastTopic].topic).toBe('a');
  });

  it('whose first event is bad gives no events', () => {
    const checker = new EventChecker();
    expect(checker.check(received(Buffer.from([0]), good))).toMatchObject({ topics: [], count: 0 });
    expect(checker.problem?.index).toBe(0);
  });

  it('leaves frames over when it has its most groups, and goes on with them', () => {
    const checker = new EventChecker();
    const frames = Array.from({ length: MAX_GROUPS + 2 }, (_, i) => of(`t${i}`, String(i)));
    // The event of the first topic belongs to a group that is there, but comes after one that is left over.
    const first = checker.check({ pieces: [framed(...frames), framed(of('t0', 'last'))] });
    expect(first.count).toBe(MAX_GROUPS);
    expect(first.topics[first.lastTopic].topic).toBe(`t${MAX_GROUPS - 1}`);
    const rest = checker.check(checker.rest!);
    expect(checker.rest).toBeUndefined();
    expect(checker.count).toBe(MAX_GROUPS + 3);
    expect(rest.topics.flatMap(({ bytes }) => eventsIn(bytes).map(({ id }) => id))).toEqual([
      String(MAX_GROUPS),
      String(MAX_GROUPS + 1),
      'last',
    ]);
  });
});

describe('attributes', () => {
  const withAttributes = (...entries: readonly Uint8Array[]) =>
    Buffer.concat([good, ...entries.map((entry) => bytesField(6, entry))]);
  const attribute = (key: string, value: string) =>
    Buffer.concat([bytesField(1, key), bytesField(2, value)]);
  const many = (count: number) =>
    Array.from({ length: count }, (_, i) => attribute(`k${i}`, 'value'));
  const ofBytes = (bytes: number) => {
    const entry = attribute('k', 'v'.repeat(bytes));
    return attribute('k', 'v'.repeat(2 * bytes - entry.length));
  };

  it('are stored as they came', () => {
    const attributes = { traceparent: '00-1-2-01', ключ: 'значение', empty: '' };
    expect(stored(encodeEvent({ ...GOOD, attributes })).attributes).toEqual(attributes);
    const without = Buffer.concat([good, bytesField(6, bytesField(1, 'k'))]);
    expect(stored(without).attributes).toEqual({ k: '' });
  });

  it('may be 64, of 8 KiB in all, in each event', () => {
    expect(problemOf(withAttributes(...many(64)), withAttributes(...many(64)))).toBeUndefined();
    expect(problemOf(withAttributes(...many(65)))).toMatch('more than 64 attributes');
    const whole = ofBytes(8 * 1024);
    expect(whole).toHaveLength(8 * 1024);
    expect(problemOf(withAttributes(whole), withAttributes(whole))).toBeUndefined();
    expect(problemOf(withAttributes(ofBytes(8 * 1024 + 1)))).toMatch('more than 8192 bytes');
    expect(problemOf(withAttributes(ofBytes(4 * 1024), ofBytes(4 * 1024 + 1)))).toMatch('8192');
  });

  it.each<[string, Uint8Array, RegExp]>([
    ['an entry cut short', tag(1, 2), /not well-formed/],
    ['an empty entry', Buffer.alloc(0), /empty key/],
    ['an empty key', attribute('', 'v'), /empty key/],
    ['two keys', Buffer.concat([attribute('k', 'v'), bytesField(1, 'k')]), /key twice/],
    ['two values', Buffer.concat([attribute('k', 'v'), bytesField(2, 'v')]), /value twice/],
    ['a number as key', varintField(1, 1), /key .* wrong wire type/],
    ['a key that is no UTF-8', bytesField(1, Buffer.from([0xff])), /key .* not valid UTF-8/],
    [
      'a value that is no UTF-8',
      Buffer.concat([bytesField(1, 'k'), bytesField(2, Buffer.from([0xc3]))]),
      /value .* not valid UTF-8/,
    ],
  ])('with %s are refused', (_what, entry, problem) => {
    expect(problemOf(withAttributes(entry))).toMatch(problem);
  });

  it('of the wrong wire type are refused', () => {
    expect(problemOf(Buffer.concat([good, varintField(6, 1)]))).toMatch('wrong wire type');
  });
});

describe('the limit of an event', () => {
  const LIMIT = 1_000;
  const CURSOR = 'abcdefghijklmnop';
  const CURSOR_BYTES = 2 + CURSOR.length;
  const ID_BYTES = 2 + 36;
  /** The size of a field with a time that has milliseconds, in bytes. */
  const TIME_BYTES = 2 + 12;

  /** Returns an event of so many bytes. */
  function sized(bytes: number, fields: Partial<WireEvent>): Buffer {
    const bare = encodeEvent({ topic: 't', ...fields, body: 'x'.repeat(500) }).length;
    return encodeEvent({ topic: 't', ...fields, body: 'x'.repeat(500 + bytes - bare) });
  }
  function checkAll(...messages: Buffer[]): { count: number; problem?: string; bytes: Buffer[] } {
    const checker = new EventChecker(Infinity, () => true, LIMIT);
    const { count, topics } = checker.check(received(...messages));
    const bytes = topics.flatMap((topic) => unframed(topic.bytes));
    return { count, problem: checker.problem?.problem, bytes };
  }

  it.each<[string, number, Partial<WireEvent>]>([
    ['with an id and a time', LIMIT, { id: 'a', at: AT }],
    ['with a cursor as well', LIMIT + CURSOR_BYTES, { id: 'a', at: AT, cursor: CURSOR }],
    ['without a time', LIMIT - TIME_BYTES, { id: 'a' }],
    ['without an id', LIMIT - ID_BYTES, { at: AT }],
    ['with an empty id', LIMIT - ID_BYTES + 2, { id: '', at: AT }],
    ['without either', LIMIT - ID_BYTES - TIME_BYTES, {}],
    ['with a cursor alone', LIMIT - ID_BYTES - TIME_BYTES + CURSOR_BYTES, { cursor: CURSOR }],
  ])('counts it as it is stored, without its cursor: %s', (_what, most, fields) => {
    vi.spyOn(Date, 'now').mockReturnValue(1_700_000_000_999);
    const { bytes, problem } = checkAll(sized(most, fields));
    expect(problem).toBeUndefined();
    expect(withoutCursor(bytes[0]).length).toBe(LIMIT);
    expect(checkAll(sized(most + 1, fields))).toEqual({
      count: 0,
      bytes: [],
      problem: 'it has 1001 bytes as it is stored, over the limit of 1000 (FEED_MAX_EVENT_BYTES)',
    });
    // Whatever is stored can be stored again.
    const sent = framed(bytes[0]);
    stampCursors(sent, 'abcdef', 1);
    const again = checkAll(unframed(sent)[0]);
    expect(again.problem).toBeUndefined();
    expect(again.bytes.map(withoutCursor)).toEqual(bytes.map(withoutCursor));
  });

  it('takes the events before one that is over it', () => {
    const fits = sized(LIMIT, { id: 'a', at: AT });
    const large = sized(LIMIT + 1, { id: 'a', at: AT });
    expect(checkAll(fits, fits, large, fits)).toMatchObject({ count: 2 });
  });
});
