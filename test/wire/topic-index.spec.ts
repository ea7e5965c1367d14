import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { TopicIndex } from '../../src/wire/topic-index.js';
import { matchesPattern, parsePattern } from '../../src/wire/topic-pattern.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const token = fc.constantFrom('a', 'b', 'ab', 'ü');
const topic = fc.array(token, { minLength: 1, maxLength: 4 }).map((tokens) => tokens.join('.'));
const pattern = fc
  .tuple(fc.array(fc.oneof(token, fc.constant('*')), { maxLength: 4 }), fc.boolean())
  .map(([tokens, isOpen]) =>
    [...tokens, ...(isOpen || tokens.length === 0 ? ['>'] : [])].join('.'),
  );
const member = fc.oneof(topic, pattern);
const byValue = (a: number, b: number): number => a - b;
const change = fc.record({ member, value: fc.nat(4), adds: fc.boolean() });

it('finds the values of a topic as each pattern by itself does, whatever was added and deleted', () =>
  fc.assert(
    fc.property(fc.array(change, { maxLength: 30 }), fc.array(topic), (changes, topics) => {
      const index = new TopicIndex<number>();
      const model = new Map<string, Set<number>>();
      for (const { member: one, value, adds } of changes) {
        const values = model.get(one) ?? new Set();
        model.set(one, values);
        if (adds) {
          expect(index.add(one, value)).toBe(!values.has(value));
          values.add(value);
        } else {
          expect(index.delete(one, value)).toBe(values.delete(value));
        }
      }
      for (const one of topics) {
        const expected = [...model].flatMap(([each, values]) =>
          matchesPattern(parsePattern(each), one.split('.')) ? [...values] : [],
        );
        const found: number[] = [];
        index.visit(one, (values) => found.push(...values));
        expect(found.toSorted(byValue)).toEqual(expected.toSorted(byValue));
        expect(index.has(one)).toBe(expected.length > 0);
      }
    }),
  ));

it('keeps nothing of what was deleted', () => {
  const index = new TopicIndex<string>();
  const members = ['a', 'a.*', 'a.>', '>', '*.b.c.>', 'a.b.*'];
  for (const one of members) index.add(one, 'x');
  for (const one of members) index.delete(one, 'x');
  expect(
    JSON.stringify(index, (_, value: unknown) => (value instanceof Map ? [...value] : value)),
  ).toBe('{"topics":[]}');
});

it('takes no more than 256 bytes of memory for each token of a pattern', () => {
  const heldFor = (rest: string): number => {
    const index = new TopicIndex<object>();
    const value = {};
    collectGarbage();
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < 10_000; i++) index.add(`${i}.${rest}`, value);
    collectGarbage();
    const held = process.memoryUsage().heapUsed - before;
    expect(index.has('none')).toBe(false);
    return held / 10_000;
  };
  expect(heldFor('>')).toBeLessThan(2 * 256);
  expect(heldFor('a.*')).toBeLessThan(3 * 256);
  expect(heldFor(`${'a.'.repeat(8)}*`)).toBeLessThan(10 * 256);
});
