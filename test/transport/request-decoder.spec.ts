import { expect, test } from 'vitest';
import { RequestDecoder } from '../../src/grpc/transport/request-decoder.js';
import { frame } from '../../src/wire/frames.js';

const MESSAGES = [0, 1, 5, 100, 3].map((bytes) => frame(Buffer.alloc(bytes, bytes)));

test.each([1, 2, 4, 5, 6, 7, 50, 1_000])(
  'messages are the same in parts of any length: %i bytes',
  (length) => {
    const decoder = new RequestDecoder(100);
    const bytes = Buffer.concat(MESSAGES);
    const found: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += length)
      found.push(...decoder.write(bytes.subarray(at, at + length)));
    expect(found).toEqual(MESSAGES);
  },
);

test('a message that is too long is refused at its header', () => {
  const decoder = new RequestDecoder(100);
  expect(() => decoder.write(frame(Buffer.alloc(101)).subarray(0, 5))).toThrow(
    'a request of 101 bytes is over the limit of 100',
  );
});
