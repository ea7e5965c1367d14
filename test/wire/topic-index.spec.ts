import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { TopicIndex } from '../../src/wire/topic-index.js';
import { matchesPattern, parsePattern } from '../../src/wire/topic-pattern.js';

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
          matchesPattern(parsePattern(each), one) ? [...values] : [],
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
  ).toBe('{"topics":[],"patterns":{"next":[],"ending":{},"rest":{}}}');
});
