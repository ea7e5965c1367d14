import { expect, test } from 'vitest';
import { indented } from '../src/topic/events/indented.ts';

test.each([
  '{"a":1,"b":[true,null,{"c":"x"}],"d":{},"e":[]}',
  '[]',
  '{}',
  '[[],[[]],{"a":{}}]',
  ' { "a" : "with, [brackets] {and} \\"quotes\\" \\\\" } ',
])('JSON is shown as JSON.stringify would indent it: %s', (text) =>
  expect(indented(text)).toBe(JSON.stringify(JSON.parse(text), null, 2)),
);

test('numbers stay as they are written', () =>
  expect(indented('{"id":12345678901234567890,"e":1.50e3}')).toBe(
    '{\n  "id": 12345678901234567890,\n  "e": 1.50e3\n}',
  ));

test.each(['', 'hello', '12', '"text"', '{"a":', '{a:1}', '[1,]'])('%j is not JSON', (text) =>
  expect(indented(text)).toBe(undefined),
);
