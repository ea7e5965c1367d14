import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { Lines } from '../../src/http/lines.js';
import { BadMessageError } from '../../src/wire/frames.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** How much (bytes) the memory of a test's own process may change by itself. As chunks, the lines below would take 64 MiB and more. */
const NOISE = 16 * 1024 * 1024;

/** Returns the memory (bytes) that is in use after V8 has collected what nobody holds. */
function usedMemory(): number {
  // Buffers that the first one finds unused are freed by the second.
  collectGarbage();
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

const texts = (lines: Lines, chunks: readonly Buffer[]): string[] => {
  const found = chunks.flatMap((chunk) => [...lines.push(chunk)].map(String));
  const last = lines.end();
  return last ? [...found, String(last)] : found;
};

test('lines are the same in whatever chunks they come', () => {
  const part = fc.oneof(fc.constantFrom('\n', '\r\n', 'a', 'bb'), fc.string({ maxLength: 3_000 }));
  fc.assert(
    fc.property(fc.array(part), fc.array(fc.nat(500)), (parts, cuts) => {
      const text = Buffer.from(parts.join(''));
      const chunks: Buffer[] = [];
      let start = 0;
      for (const length of cuts) chunks.push(text.subarray(start, (start += length)));
      chunks.push(text.subarray(start));
      const expected = text.toString().split('\n');
      if (expected.at(-1) === '') expected.pop();
      const without = expected.map((line) => line.replace(/\r$/, ''));
      expect(texts(new Lines(1e6), chunks)).toEqual(without);
    }),
  );
});

test('a line that is too long is refused, in whatever chunks it comes', () => {
  const push = (lines: Lines, text: string) => [...lines.push(Buffer.from(text))];
  const lines = new Lines(10);
  expect(push(lines, '0123456789\n01234')).toHaveLength(1);
  expect(() => push(lines, '567890')).toThrow(BadMessageError);
  expect(() => push(new Lines(10), '01234567890\n')).toThrow(BadMessageError);
});

test('an unfinished line takes little more memory than it has bytes, and says how much', () => {
  const bytes = 1024 * 1024;
  const lines = new Lines(2 * bytes);
  const before = usedMemory();
  for (let i = 0; i < bytes; i++) for (const _ of lines.push(Buffer.alloc(1, 'x')));
  expect(usedMemory() - before).toBeLessThan(NOISE + bytes);
  expect(lines.heldBytes).toBeGreaterThanOrEqual(bytes);
  expect(lines.heldBytes).toBeLessThan(1.5 * bytes);
  expect(lines.end()).toHaveLength(bytes);
  expect(lines.heldBytes).toBe(0);
});

test('an unfinished line does not keep the chunk of which it is the end', () => {
  const kept = Array.from({ length: 1_000 }, () => new Lines(1e6));
  const before = usedMemory();
  for (const lines of kept) {
    const chunk = Buffer.allocUnsafeSlow(64 * 1024).fill('\n');
    chunk[chunk.length - 1] = 0x78;
    for (const _ of lines.push(chunk));
  }
  expect(usedMemory() - before).toBeLessThan(NOISE);
  expect(kept[0].heldBytes).toBeGreaterThan(0);
});
