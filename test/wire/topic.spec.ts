import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { topicProblem } from '../../src/wire/topic.js';

describe('a topic', () => {
  it.each([
    'a',
    'orders.created',
    'Ünïcode.🙂',
    'a-b_c/d:e',
    '#',
    '0',
    'a'.repeat(200),
    '€'.repeat(66),
  ])('may be %s', (name) => expect(topicProblem(name)).toBeUndefined());

  it.each([
    ['empty', '', /empty/],
    ['of 201 bytes', 'a'.repeat(201), /201 bytes/],
    ['of 201 bytes in 67 characters', '€'.repeat(67), /201 bytes/],
    ['half a surrogate pair', 'a\ud800', /UTF-8/],
    ['a dot', '.', /empty token/],
    ['begun with a dot', '.a', /empty token/],
    ['ended with a dot', 'a.', /empty token/],
    ['with two dots together', 'a..b', /empty token/],
    ['any token', '*', /"\*"/],
    ['a pattern', 'a.*.b', /"\*"/],
    ['a pattern of all that follows', 'a.>', /"\*"/],
    ['half a pattern', 'a*b', /"\*"/],
  ])('may not be %s', (_what, name, problem) => {
    expect(topicProblem(name)).toMatch(problem);
  });

  // Unicode's White_Space and control characters, listed by number, because the code under test uses the classes.
  const forbidden = [
    ...Array.from({ length: 0x21 }, (_, i) => i),
    ...Array.from({ length: 0x22 }, (_, i) => 0x7f + i), // DEL, C1, no-break space
    0x1680,
    ...Array.from({ length: 11 }, (_, i) => 0x2000 + i),
    0x2028,
    0x2029,
    0x202f,
    0x205f,
    0x3000,
    0x2a,
    0x3e,
  ];

  it('has no white space and no control characters, wherever they stand', () => {
    for (const code of forbidden) {
      const character = String.fromCodePoint(code);
      for (const name of [character, `a${character}`, `${character}a`, `a${character}b`]) {
        expect([code.toString(16), topicProblem(name)]).not.toContain(undefined);
      }
    }
  });

  it('may have any other character', () => {
    // U+FEFF is left out: JavaScript takes it for white space, Unicode does not, and a topic may allow or refuse it.
    const others = fc
      .string({ unit: 'binary', minLength: 1, maxLength: 1 })
      .filter((character) => !forbidden.includes(character.codePointAt(0)!))
      .filter((character) => character !== '.' && character !== '\ufeff');
    fc.assert(
      fc.property(others, (character) => {
        expect(topicProblem(`a${character}`)).toBeUndefined();
        expect(topicProblem(`${character}.${character}`)).toBeUndefined();
      }),
      { numRuns: 1_000 },
    );
  });
});
