import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EventChecker } from '../../src/wire/check-events.js';
import { frameOfJson, frameOfText } from '../../src/wire/event-json.js';
import { BadMessageError, FRAME_HEADER_BYTES } from '../../src/wire/frames.js';
import { formatTime, parseTime } from '../../src/wire/rfc3339.js';
import { StoredEvent } from '../../src/wire/stored-event.js';
import { TextWriter } from '../../src/wire/text-writer.js';
import { codec } from '../support/client.js';
import { eventFrames } from '../support/frames.js';

const out = new TextWriter();
const stored = new StoredEvent();

function jsonOf(frames: Buffer): string {
  stored.read(frames, 0);
  stored.writeJson(out);
  return out.take().toString();
}

const messageOf = (frame: Buffer) => codec.event.deserialize(frame.subarray(FRAME_HEADER_BYTES));
const read = (json: string, topic = '') => messageOf(frameOfJson(Buffer.from(json), topic));

const text = fc.string({ unit: 'binary' });
const time = fc.record({
  seconds: fc.integer({ min: -62135596800, max: 253402300799 }),
  nanos: fc.oneof(
    fc.integer({ min: 0, max: 999_999_999 }),
    fc.integer({ min: 0, max: 999 }).map((ms) => ms * 1e6),
  ),
});

test('an event is written as JSON that says the same, in one line', () => {
  const event = fc.record({
    id: fc.string({ unit: 'binary', minLength: 1 }),
    topic: text,
    body: fc.oneof(text, fc.string({ unit: 'binary', minLength: 200, maxLength: 400 })),
    at: time,
    cursor: fc.constant('0000000001fc406w'),
    attributes: fc.dictionary(
      text.filter((key) => key !== '__proto__'),
      text,
      { noNullPrototype: true },
    ),
  });
  fc.assert(
    fc.property(event, (given) => {
      const json = jsonOf(eventFrames(given).bytes);
      expect(json).not.toMatch(/[\r\n]/);
      const { at, attributes = {}, ...rest } = JSON.parse(json) as Record<string, unknown>;
      expect({ ...rest, attributes, at: parseTime(at as string) }).toEqual(given);
    }),
  );
});

test('a text that is longer than the writer is at first comes whole', () => {
  const body = `${'\u0001é"'.repeat(200_000)}end`;
  const json = jsonOf(eventFrames({ id: 'a', topic: 't', body }).bytes);
  expect((JSON.parse(json) as { body: string }).body).toBe(body);
});

test('what was written is read as the same event, but for its cursor', () => {
  const json =
    '{"id":"a","topic":"orders","body":"\\u0000é","at":"1969-12-31T23:59:59.5Z","cursor":"0000000001fc406w","attributes":{"b":"","__proto__":"c"}}';
  const event = messageOf(frameOfJson(Buffer.from(json), 'other'));
  expect(event).toMatchObject({ id: 'a', topic: 'orders', body: '\u0000é', cursor: '' });
  expect(event.at).toEqual({ seconds: -1, nanos: 500_000_000 });
  const checker = new EventChecker();
  const { count } = checker.check({ pieces: [frameOfJson(Buffer.from(json), '')] });
  expect(checker.problem).toBeUndefined();
  expect(count).toBe(1);
});

test('what is missing or null is not there, and a topic may come from elsewhere', () => {
  expect(read('{"body":null,"at":null,"attributes":null}', 'orders')).toMatchObject({
    id: '',
    topic: 'orders',
    body: '',
    at: null,
  });
  expect(messageOf(frameOfText(Buffer.from('é'), 't'))).toMatchObject({ topic: 't', body: 'é' });
});

test.each([
  ['', 'it is not JSON'],
  ['[]', 'it is no object'],
  ['"a"', 'it is no object'],
  ['{"topic":"t","boddy":"x"}', '"boddy" is no field of an event'],
  ['{"topic":"t","body":{"a":1}}', 'body must be a text: JSON in it goes as a text'],
  ['{"topic":1}', 'topic must be a text'],
  ['{"topic":"t","id":false}', 'id must be a text'],
  ['{"topic":"t","body":"\\ud800"}', 'body is not valid UTF-8'],
  ['{"topic":"t","attributes":{"a":1}}', 'attributes must be an object of texts'],
  ['{"topic":"t","attributes":[]}', 'attributes must be an object of texts'],
  ['{"topic":"t","at":1}', 'at must be a time'],
  ['{"topic":"t","at":"2026-02-30T00:00:00Z"}', 'at must be a time'],
])('%s is refused: %s', (json, problem) => {
  expect(() => read(json)).toThrow(BadMessageError);
  expect(() => read(json)).toThrow(problem);
});

test('bytes that are no UTF-8 are refused', () => {
  const bytes = Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]);
  expect(() => frameOfJson(bytes, 't')).toThrow('it is not valid UTF-8');
  expect(() => frameOfText(bytes, 't')).toThrow('it is not valid UTF-8');
});

describe('a time', () => {
  test('is read as it was written, whatever it is', () => {
    fc.assert(
      fc.property(time, (given) => {
        expect(parseTime(formatTime(given))).toEqual(given);
      }),
    );
  });

  test.each([
    ['2026-01-31T10:00:00.5+01:00', { seconds: 1769850000, nanos: 500_000_000 }],
    ['2026-01-31t09:00:00z', { seconds: 1769850000, nanos: 0 }],
    ['2024-02-29T00:00:00-00:30', { seconds: 1709166600, nanos: 0 }],
    ['0001-01-01T00:00:00Z', { seconds: -62135596800, nanos: 0 }],
  ])('%s is %j', (written, expected) => expect(parseTime(written)).toEqual(expected));

  test.each([
    '2026-02-29T00:00:00Z',
    '2026-01-31T24:00:00Z',
    '2026-01-31T09:00:60Z',
    '2026-01-31T09:00:00',
    '2026-01-31 09:00:00Z',
    '2026-01-31T09:00:00.Z',
    '2026-01-31T09:00:00.1234567890Z',
    '2026-01-31T09:00:00+24:00',
    '0001-01-01T00:00:00+00:01',
    '9999-12-31T23:59:59-00:01',
    '20260131T090000Z',
    '',
  ])('%s is none', (written) => expect(parseTime(written)).toBeUndefined());

  test.each([
    [0, '2026-01-31T09:00:00Z'],
    [120_000_000, '2026-01-31T09:00:00.120Z'],
    [1_000, '2026-01-31T09:00:00.000001Z'],
    [1, '2026-01-31T09:00:00.000000001Z'],
  ])('with %i nanoseconds is written as %s', (nanos, written) =>
    expect(formatTime({ seconds: 1769850000, nanos })).toBe(written),
  );
});

test('attributes beyond the limits are refused before any is encoded', () => {
  const refusalOf = (attributes: Record<string, string>): string => {
    try {
      frameOfJson(Buffer.from(JSON.stringify({ topic: 't', attributes })), '');
    } catch (error) {
      if (error instanceof BadMessageError) return error.message;
      throw error;
    }
    return 'none';
  };
  const many = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [i, '']));
  expect(refusalOf(many(64))).toBe('none');
  expect(refusalOf(many(65))).toBe('there are more than 64 attributes');
  expect(refusalOf({ a: 'x'.repeat(8_180) })).toBe('none');
  expect(refusalOf({ a: 'x'.repeat(4_096), b: 'é'.repeat(2_048) })).toBe(
    'attributes take more than 8192 bytes',
  );
});

test('the refusal of what is no JSON does not quote it', () => {
  for (const json of [
    'secret',
    '{"body":"secret" secret',
    '{"body":secret}',
    '"secret',
    '{"secret',
  ])
    expect(() => frameOfJson(Buffer.from(json), 't')).toThrow(/^it is not JSON$|^it is no object/);
});

test.each([
  ['deep', '{"body":' + '['.repeat(100_000)],
  ['with many values', '{"body":[' + '1,'.repeat(50_000)],
  ['with many names', '{' + '"a":"b":'.repeat(10_000)],
])('a long line that is %s is refused before it is parsed', (_, json) => {
  expect(() => read(json)).toThrow(BadMessageError);
  // The end is missing, so the parser would find no JSON.
  expect(() => read(json)).toThrow('it has more values than an event, or values deeper in others');
});

test('a long text may have anything in it', () => {
  const body = '{[,:\\"]}\\'.repeat(10_000);
  const attributes = Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`${i}"{`, '{[,:"']));
  const event = { id: 'a', topic: 't', body, at: '2026-01-31T09:00:00Z', attributes };
  for (const space of ['', ' ']) {
    const json = JSON.stringify(event, null, space);
    expect(read(json)).toMatchObject({ body, attributes });
  }
});
