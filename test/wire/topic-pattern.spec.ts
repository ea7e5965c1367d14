import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  matchesPattern,
  narrowest,
  parsePattern,
  patternProblem,
} from '../../src/wire/topic-pattern.js';
import { topicProblem } from '../../src/wire/topic.js';

const matches = (pattern: string, topic: string): boolean =>
  matchesPattern(parsePattern(pattern), topic.split('.'));

describe('a pattern of topics', () => {
  it.each([
    ['orders', ['orders'], ['order', 'orders.created', 'Orders']],
    ['orders.*', ['orders.created', 'orders.paid'], ['orders', 'orders.a.b', 'other.created']],
    ['orders.>', ['orders.a', 'orders.a.b.c'], ['orders', 'other.a', 'ordersx.a']],
    ['*.paid', ['orders.paid'], ['paid', 'a.b.paid', 'orders.paid.late']],
    ['>', ['a', 'a.b'], []],
    ['*', ['a'], ['a.b']],
    ['a.*.>', ['a.b.c', 'a.b.c.d'], ['a.b', 'a']],
    // Another pattern, if all its topics are.
    ['>', ['>', '*', 'a.>', 'a.*'], []],
    ['*', ['*'], ['>', '*.*']],
    ['a.>', ['a.>', 'a.*', 'a.*.>', 'a.b.>'], ['>', '*', 'a', '*.b', '*.>']],
    ['a.*', ['a.*', 'a.b'], ['a.>', '*.b', 'a.*.*']],
  ])('%s matches %j and not %j', (pattern, yes, no) => {
    expect(patternProblem(pattern)).toBeUndefined();
    expect(yes.filter((topic) => !matches(pattern, topic))).toEqual([]);
    expect(no.filter((topic) => matches(pattern, topic))).toEqual([]);
  });

  it.each(['', '.', 'a.', '.a', 'a..b', 'a b', 'or*', '>.a', 'a.>.b', 'a>', '**', 'a.**', '\n'])(
    'is refused: %j',
    (pattern) => expect(patternProblem(pattern)).toEqual(expect.any(String)),
  );
});

const token = fc.constantFrom('a', 'b', 'ab', 'ü', '+', '$');
const topic = fc.array(token, { minLength: 1, maxLength: 5 }).map((tokens) => tokens.join('.'));
const pattern = fc
  .tuple(fc.array(fc.oneof(token, fc.constant('*')), { minLength: 1, maxLength: 5 }), fc.boolean())
  .map(([tokens, isOpen]) => [...tokens, ...(isOpen ? ['>'] : [])].join('.'));

describe('any pattern', () => {
  it('matches the topics that a regular expression made of it matches', () => {
    fc.assert(
      fc.property(pattern, topic, (one, name) => {
        const source = one
          .split('.')
          .map((part) => {
            if (part === '*') return String.raw`[^.]+`;
            return part === '>' ? '.+' : part.replace(/[+$]/, String.raw`\$&`);
          })
          .join(String.raw`\.`);
        expect(matches(one, name)).toBe(new RegExp(`^${source}$`, 'u').test(name));
      }),
      { numRuns: 2_000 },
    );
  });

  it('that is a topic matches this topic and no other', () => {
    fc.assert(
      fc.property(topic, topic, (one, other) => {
        expect(matches(one, one)).toBe(true);
        expect(matches(one, other)).toBe(one === other);
      }),
    );
  });

  it('without wildcards is valid where a topic is', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 20 }), (text) => {
        fc.pre(!/[*>]/.test(text));
        expect(patternProblem(text)).toBe(topicProblem(text));
      }),
    );
  });
});

describe('the narrowest pattern of several', () => {
  it.each([
    [['a.b'], 'a.b'],
    [['a.b', 'a.c'], 'a.*'],
    [['a.b.c', 'a.d.c'], 'a.*.c'],
    [['a.>', 'a.b.c'], 'a.>'],
    [['a', 'a.b'], '>'],
    [['a.b', 'a.b.c'], 'a.>'],
    [['a', 'b.>'], '>'],
  ])('of %j is %s', (members, expected) => {
    expect(narrowest(members)).toBe(expected);
  });

  it('has all topics of each', () =>
    fc.assert(
      fc.property(
        fc.array(fc.oneof(topic, pattern), { minLength: 1, maxLength: 4 }),
        topic,
        (members, one) => {
          const whole = narrowest(members);
          expect(patternProblem(whole)).toBeUndefined();
          if (members.some((member) => matches(member, one)))
            expect(matches(whole, one)).toBe(true);
        },
      ),
    ));
});
