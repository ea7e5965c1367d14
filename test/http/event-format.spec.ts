import { describe, expect, test } from 'vitest';
import { JSON_LINES, SERVER_SENT_EVENTS, type EventFormat } from '../../src/http/event-format.js';
import { eventFrames } from '../support/frames.js';

const KIB = 1024;
/** A part of a batch has at most so much text, unless one event has more. */
const MOST = 16 * KIB;

const event = (body: string) => ({
  id: 'a',
  topic: 't',
  body,
  at: { seconds: 1, nanos: 0 },
  cursor: '0000000001fc406w',
});

function partsOf(format: EventFormat, frames: Buffer): Buffer[] {
  const parts: Buffer[] = [];
  for (let at = 0, begun = 0; at < frames.length;) {
    const part = format.textOf(frames, at, begun);
    // Watches at the same place share it.
    expect(format.textOf(frames, at, begun)).toBe(part);
    expect(part.end > at ? part.begun === 0 : part.begun > begun).toBe(true);
    parts.push(part.text);
    ({ end: at, begun } = part);
  }
  return parts;
}

describe.each([
  ['Server-Sent Events', SERVER_SENT_EVENTS],
  ['JSON lines', JSON_LINES],
])('%s', (_name, format) => {
  test.each([
    ['small events', 200, 150, 'x'],
    ['events that grow sixfold', 40, 800, '\u0001'],
    ['large events that grow sixfold', 4, 8 * KIB - 60, '\u0001'],
    ['large events', 2, 15 * KIB, 'x'],
  ])('%s are sent in parts of little text, all of them once', (_of, count, length, sign) => {
    const events = Array.from({ length: count }, (_, i) => event(`${i}`.padEnd(length, sign)));
    const one = Math.max(
      ...events.map((each) => partsOf(format, eventFrames(each).bytes)[0].length),
    );
    const frames = eventFrames(...events).bytes;
    const parts = partsOf(format, frames);
    for (const part of parts) {
      expect(part.length).toBeLessThanOrEqual(Math.max(MOST, one));
      // In memory of its own.
      expect(part.buffer.byteLength).toBe(part.length);
    }
    const text = Buffer.concat(parts).toString();
    const bodies = [...text.matchAll(/"body":("(?:[^"\\]|\\.)*")/g)].map(
      ([, body]) => JSON.parse(body) as string,
    );
    expect(bodies).toEqual(events.map(({ body }) => body));
    // Small events share a part: each part is a write.
    expect(parts.length).toBeLessThanOrEqual(Math.ceil((2 * text.length) / MOST) + 1);
  });

  test('a long event that grows sixfold is sent in pieces of little text, wherever its texts are', () => {
    const long = (bytes: number) => '\u0001"\u00e4'.repeat(bytes / 4);
    const events = [
      { ...event(long(300 * KIB)), attributes: { a: 'b' } },
      { ...event('x'), id: long(100 * KIB), attributes: { [long(3 * KIB)]: long(3 * KIB) } },
      event(`${long(2 * KIB)}${'x'.repeat(10 * KIB)}`),
    ];
    const parts = partsOf(format, eventFrames(...events).bytes);
    for (const { length } of parts) expect(length).toBeLessThanOrEqual(MOST + 6 * 4 * KIB);
    const text = Buffer.concat(parts).toString();
    const read = text.split('\n').map((line) => /^(?:data: )?(\{.*\})$/.exec(line)?.[1]);
    expect(read.filter((json) => json !== undefined).map((json) => JSON.parse(json))).toMatchObject(
      events.map((each) => ({ ...each, at: '1970-01-01T00:00:01Z' })),
    );
  });

  test('a long event that grows little is one part, so that all who are sent it share it', () => {
    const body = '"body": "x"'.padEnd(500 * KIB, 'x');
    expect(partsOf(format, eventFrames(event(body), event(body)).bytes)).toHaveLength(2);
  });
});
