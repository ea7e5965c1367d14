import { expect, test } from 'vitest';
import { Lines } from '../src/api/lines.ts';

test.each([1, 2, 3, 5, 1000])('lines come whole from chunks of %i bytes', (size) => {
  const text = '{"a":"é€𝄞"}\n\n{"b":1}\nnot ended';
  const bytes = new TextEncoder().encode(text);
  const lines = new Lines();
  const found: string[] = [];
  for (let start = 0; start < bytes.length; start += size)
    found.push(...lines.take(bytes.slice(start, start + size)));
  expect(found).toEqual(['{"a":"é€𝄞"}', '', '{"b":1}']);
});
