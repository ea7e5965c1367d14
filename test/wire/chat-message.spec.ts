import * as fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { chatMessagesIn, echoes, framedMessage } from '../../src/wire/chat-message.js';
import { BadMessageError } from '../../src/wire/frames.js';
import type { ReceivedFrames } from '../../src/wire/frames.js';
import {
  bytesField,
  decodeChat,
  encodeChat,
  framed,
  received,
  tag,
  unframed,
  varintField,
  type WireChatMessage,
} from './events.js';

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 30 }),
  // Lengths around those where the length's varint takes a second or a third byte.
  fc.integer({ min: 115, max: 135 }).map((length) => 'x'.repeat(length)),
  fc.integer({ min: 16_370, max: 16_390 }).map((length) => 'x'.repeat(length)),
);
const messages = fc.record<Partial<WireChatMessage>>(
  { from: text, text, room: text },
  { requiredKeys: [] },
);
/** A message and its bytes, with its fields in any order. */
const encoded = messages.chain((message) => {
  const fields = Object.entries(message).map(([name, value]) => encodeChat({ [name]: value }));
  return fc
    .shuffledSubarray(fields, { minLength: fields.length })
    .map((order) => ({ message, bytes: Buffer.concat(order) }));
});

const read = (frames: ReceivedFrames) => [...chatMessagesIn(frames)];
const textOf = ({ source, textStart, textEnd }: ReturnType<typeof read>[number]) =>
  source.toString('utf8', textStart, textEnd);

/** Returns the text of the answer, or undefined if the message is refused. */
function echoTo(message: Uint8Array): string | undefined {
  try {
    return decodeChat(unframed(echoes(read(received(message))).bytes)[0]).text;
  } catch (error) {
    if (error instanceof BadMessageError) return undefined;
    throw error;
  }
}

describe('chat messages', () => {
  it('are read as protobuf.js wrote them, from any number of pieces', () => {
    fc.assert(
      fc.property(fc.array(fc.array(encoded, { maxLength: 4 }), { maxLength: 3 }), (pieces) => {
        const found = read({ pieces: pieces.map((piece) => framed(...piece.map((m) => m.bytes))) });
        expect(found.map((view) => ({ text: textOf(view), room: view.room }))).toEqual(
          pieces.flat().map(({ message }) => ({
            text: message.text ?? '',
            room: message.room ?? '',
          })),
        );
      }),
    );
  });

  it('may have unknown fields, and a field twice: the last one counts', () => {
    const bytes = Buffer.concat([
      varintField(4, 1),
      encodeChat({ text: 'first', room: 'a' }),
      encodeChat({ text: 'second', room: '' }),
      bytesField(9, Buffer.from([0xff])),
    ]);
    const [view] = read(received(bytes));
    expect([textOf(view), view.room]).toEqual(['second', '']);
  });

  it('have the one sender that they are given, and an object for none of their other fields', () => {
    const unknown = Buffer.concat(Array.from({ length: 1_000 }, () => varintField(15, 1)));
    const mine = bytesField(1, 'me');
    const kept = [encodeChat({ room: 'a' }), unknown, encodeChat({ text: 'hi' })];
    const source = received(Buffer.concat([mine, kept[0], mine, mine, kept[1], mine, kept[2]]));
    const pieces = vi.spyOn(Buffer.prototype, 'subarray');
    const [view] = read(source);
    const message = framedMessage(view, 'ann');
    expect(pieces.mock.calls.length).toBeLessThan(20);
    pieces.mockRestore();
    expect(unframed(message)).toEqual([Buffer.concat([bytesField(1, 'ann'), ...kept])]);
  });

  it.each([
    ['from of a wrong type', varintField(1, 1), /from has the wrong wire type/],
    ['text of a wrong type', varintField(2, 1), /text has the wrong wire type/],
    ['room of a wrong type', varintField(3, 1), /room has the wrong wire type/],
    ['a broken from', bytesField(1, Buffer.from([0xff])), /from is not valid UTF-8/],
    ['a broken text', bytesField(2, Buffer.from([0xff])), /text is not valid UTF-8/],
    ['a broken room', bytesField(3, Buffer.from([0xff])), /room is not valid UTF-8/],
    ['a field cut short', Buffer.from([0x12, 0x02, 0x61]), /not well-formed/],
    ['field 0', varintField(0, 1), /not well-formed/],
    ['a group', tag(7, 3), /not well-formed/],
  ])('with %s are refused', (_what, bytes, problem) => {
    expect(() => read(received(encodeChat({ text: 'ok' }), bytes))).toThrow(problem);
    expect(() => read(received(bytes))).toThrow(BadMessageError);
  });

  it('of random bytes are refused, or echoed as protobuf.js reads them', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 30 }), (bytes) => {
        const answer = echoTo(bytes);
        expect(answer).toBe(answer && `echo: ${decodeChat(Buffer.from(bytes)).text}`);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('echoes', () => {
  it('are one answer from the server to each message, in order', () => {
    fc.assert(
      fc.property(fc.array(encoded, { maxLength: 6 }), (sent) => {
        const { bytes, count } = echoes(read(received(...sent.map((m) => m.bytes))));
        expect(count).toBe(sent.length);
        expect(unframed(bytes).map(decodeChat)).toEqual(
          sent.map(({ message }) => ({
            from: 'server',
            text: `echo: ${message.text ?? ''}`,
            room: '',
          })),
        );
      }),
    );
  });
});
