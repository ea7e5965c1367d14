import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { EncodedEvent, encodedOf } from '../src/encoded.js';
import { maxFrameBytes, writeEventFrame } from '../src/event-frame.js';
import { Event } from '../src/gen/feed/v1/feed.js';
import { frame, MessageSplitter, offsetAfter } from '../src/grpc/frames.js';
import { cursorAt } from './scripted-server.js';

const event = fc.record({
  id: fc.string({ unit: 'binary' }),
  topic: fc.string(),
  body: fc.string({ unit: 'binary', maxLength: 20_000, size: 'max' }),
  at: fc.option(
    fc.date({ min: new Date(0), max: new Date(253_402_300_799_999), noInvalidDate: true }),
    {
      nil: undefined,
    },
  ),
  attributes: fc.option(fc.dictionary(fc.string({ minLength: 1 }), fc.string({ unit: 'binary' })), {
    nil: undefined,
  }),
});

test("an event's frame holds what the generated code would write, within maxFrameBytes()", () => {
  fc.assert(
    fc.property(event, fc.nat(10), (next, at) => {
      const target = Buffer.alloc(at + maxFrameBytes(next));
      const end = writeEventFrame(target, at, next);
      const attributes = next.attributes ?? {};
      const wanted = frame(Event.encode({ ...next, attributes, cursor: '' }).finish());
      expect(target.subarray(at, end).equals(wanted)).toBe(true);
    }),
  );
});

test('messages come out of chunks of any size as they went in', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 300 })),
      fc.array(fc.integer({ min: 1, max: 400 })),
      (messages, sizes) => {
        const bytes = Buffer.concat(messages.map(frame));
        const splitter = new MessageSplitter(300);
        const out: Buffer[] = [];
        let at = 0;
        for (let i = 0; at < bytes.length; i++) {
          const size = sizes[i % sizes.length] ?? bytes.length;
          out.push(...splitter.push(bytes.subarray(at, at + size)));
          at += size;
        }
        expect(out.map((one) => [...one])).toEqual(messages.map((one) => [...one]));
      },
    ),
  );
});

test('a compressed message and one over the limit are refused', () => {
  const compressed = frame(new Uint8Array(3));
  compressed[0] = 1;
  expect(() => new MessageSplitter(10).push(compressed)).toThrow('compressed');
  expect(() => new MessageSplitter(10).push(frame(new Uint8Array(11)))).toThrow('limit of 10');
});

test('the offset after n frames is found', () => {
  const frames = Buffer.concat([
    frame(new Uint8Array(3)),
    frame(new Uint8Array(0)),
    frame(new Uint8Array(7)),
  ]);
  expect([0, 1, 2, 3].map((n) => offsetAfter(frames, n))).toEqual([0, 8, 13, 25]);
});

test('an event that is passed on has its cursor no longer, wherever that stood', () => {
  const fields = { id: 'a', topic: 't', body: 'b', at: new Date(1_500), attributes: { k: 'v' } };
  const wanted = Buffer.from(Event.encode({ ...fields, cursor: '' }).finish());
  const nothing = { id: '', topic: '', body: '', at: undefined, attributes: {} };
  const cursor = Event.encode({ ...nothing, cursor: cursorAt(7) }).finish();
  const inTheMiddle = Event.encode({ ...fields, cursor: cursorAt(7) }).finish(); // the order of the fields' numbers
  for (const bytes of [
    Buffer.concat([wanted, cursor]),
    inTheMiddle,
    Buffer.concat([cursor, wanted]),
  ]) {
    const decoded = EncodedEvent.decode(bytes);
    expect(decoded).toMatchObject({ id: 'a', cursor: cursorAt(7) });
    expect(wanted.equals(encodedOf(decoded)!)).toBe(true);
  }
});
