import { expect, test } from 'vitest';
import { indented } from '../src/topic/events/indented.ts';

/** More characters than any text of these tests has. */
const ALL = 1_000_000;

test.each([
  '{"a":1,"b":[true,null,{"c":"x"}],"d":{},"e":[]}',
  '[]',
  '{}',
  '[[],[[]],{"a":{}}]',
  ' { "a" : "with, [brackets] {and} \\"quotes\\" \\\\" } ',
])('JSON is shown as JSON.stringify would indent it: %s', (text) =>
  expect(indented(text, ALL)).toBe(JSON.stringify(JSON.parse(text), null, 2)),
);

test('numbers stay as they are written', () =>
  expect(indented('{"id":12345678901234567890,"e":1.50e3}', ALL)).toBe(
    '{\n  "id": 12345678901234567890,\n  "e": 1.50e3\n}',
  ));

test.each(['', 'hello', '12', '"text"', '{"a":', '{a:1}', '[1,]'])('%j is not JSON', (text) =>
  expect(indented(text, ALL)).toBe(undefined),
);

test.each(['[1,2,3]', '{"a":{"b":[]}}', '[[[[]]]]'])(
  'no more is made of JSON than a character beyond what is shown: %s',
  (text) => {
    const all = JSON.stringify(JSON.parse(text), null, 2);
    for (let most = 0; most < all.length; most++)
      expect(indented(text, most)).toBe(all.slice(0, most + 1));
  },
);

test('JSON is read no further than to what is shown', () =>
  expect(indented(`[1,2,${'['.repeat(500)}${']'.repeat(500)}]`, 5)).toBe('[\n  1,'));

test('a text that is longer than what is shown is cut, too', () =>
  expect(indented(`["${'x'.repeat(500)}"]`, 100)).toBe(`[\n  "${'x'.repeat(96)}`));

test.each([
  ['[', ']'],
  ['{"a":', '}'],
])('JSON of more than 100 levels is not indented: %s', (open, close) => {
  const nested = (levels: number): string =>
    `${open.repeat(levels - 1)}[]${close.repeat(levels - 1)}`;
  expect(indented(nested(100), ALL)).toBe(JSON.stringify(JSON.parse(nested(100)), null, 2));
  expect(indented(nested(101), ALL)).toBe(undefined);
  expect(indented(nested(500), ALL)).toBe(undefined);
});
