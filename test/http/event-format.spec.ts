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
  for (let at = 0; at < frames.length;) {
    const { text, end } = format.textOf(frames, at);
    expect(end).toBeGreaterThan(at);
    parts.push(text);
    at = end;
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
});
