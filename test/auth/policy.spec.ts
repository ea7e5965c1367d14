import * as fc from 'fast-check';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { parsePolicy, PolicyError } from '../../src/auth/policy.js';
import { matchesWildcard } from '../../src/auth/wildcard.js';

vi.mock('../../src/auth/wildcard.js', { spy: true });

const POLICY = `
rules:
  - principals: ["system:serviceaccount:shop:*", bob]
    verbs: [watch, upload]
    topics: ["orders.>", audit]
  - principals: ["*"]
    verbs: [chat]
    topics: [lobby]
`;

describe('a policy', () => {
  const policy = parsePolicy(POLICY);

  it.each([
    ['system:serviceaccount:shop:web', 'watch', 'orders.created', true],
    ['system:serviceaccount:shop:web', 'upload', 'audit', true],
    ['bob', 'upload', 'orders.a.b', true],
    ['bob', 'watch', 'orders', false],
    ['bob', 'admin', 'audit', false],
    ['bobby', 'watch', 'audit', false],
    ['system:serviceaccount:shopping:web', 'watch', 'audit', false],
    ['anybody', 'chat', 'lobby', true],
    ['anybody', 'chat', 'kitchen', false],
    ['anybody', 'chat', undefined, true],
    ['anybody', 'watch', undefined, false],
    ['bob', 'watch', undefined, true],
  ] as const)('answers for %s, %s and %s: %s', (principal, verb, topic, answer) =>
    expect(policy.allows(principal, verb, topic)).toBe(answer),
  );

  it('without rules allows nothing', () =>
    expect(parsePolicy('rules: []').allows('ann', 'watch')).toBe(false));
});

describe('a policy of many rules', () => {
  const TENANTS = 1_001;
  const policy = parsePolicy(
    `rules:\n${Array.from(
      { length: TENANTS },
      (_, i) => `  - {principals: ["${i}:*"], verbs: [upload], topics: ["${i}.>"]}\n`,
    ).join('')}`,
  );
  const allows = (tenant: number, topic: string): boolean =>
    policy.allows(`${tenant}:app`, 'upload', topic);

  it('is searched once for a principal, and not for each of its topics', () => {
    expect(allows(7, '7.orders')).toBe(true);
    vi.mocked(matchesWildcard).mockClear();
    for (let i = 0; i < 100; i++) expect(allows(7, `7.orders.${i}`)).toBe(true);
    expect(allows(7, '8.orders')).toBe(false);
    expect(matchesWildcard).not.toHaveBeenCalled();
  });

  it('remembers the rules of a thousand principals, and forgets the first one', () => {
    expect(allows(7, '7.orders')).toBe(true);
    for (let i = 0; i < TENANTS; i++) expect(allows(i, `${i}.orders`)).toBe(true);
    vi.mocked(matchesWildcard).mockClear();
    expect(allows(TENANTS - 1, '7.orders')).toBe(false);
    expect(matchesWildcard).not.toHaveBeenCalled();
    expect(allows(7, '7.orders')).toBe(true);
    expect(matchesWildcard).toHaveBeenCalled();
  });
});

describe('a policy that cannot be used', () => {
  it.each([
    [
      'an unknown verb',
      POLICY.replace('[chat]', '[chat, talk]'),
      'line 7: rules[1].verbs[1]: must be one of watch, upload, chat, admin',
    ],
    ['a bad pattern', POLICY.replace('audit', '"or*"'), 'line 5: rules[0].topics[1]: or*: '],
    ['a rule for nobody', POLICY.replace('["*"]', '[]'), 'line 6: rules[1].principals: '],
    ['a misspelt key', POLICY.replace('verbs: [chat]', 'verb: [chat]'), 'line 6: rules[1]'],
    ['no rules', 'rule: []', 'line 1: '],
    ['nothing', '', 'line 1: the policy: '],
    ['a key that is there twice', `${POLICY}rules: []\n`, 'line 9: it is not YAML: '],
    ['a list that does not end', 'rules: [', 'line 1: it is not YAML: '],
    ['a tag', 'rules: !!js/function x', 'line 1: it is not YAML: '],
  ])('is refused with its line: %s', (_, text, problem) => {
    const parse = () => parsePolicy(text);
    expect(parse).toThrow(PolicyError);
    expect(parse).toThrow(problem);
  });

  it('is refused, and takes no time: aliases of aliases', () => {
    const levels = Array.from({ length: 20 }, (_, i) => {
      const of = i === 0 ? 'x' : `*a${i - 1}`;
      return `a${i}: &a${i} [${Array.from({ length: 10 }, () => of).join(', ')}]`;
    });
    expect(() => parsePolicy(levels.join('\n'))).toThrow(PolicyError);
  });

  it('is refused without a word on standard error: keys that are lists', () => {
    const emitWarning = vi.spyOn(process, 'emitWarning');
    onTestFinished(() => emitWarning.mockRestore());
    expect(() => parsePolicy('[a, b]: c')).toThrow(PolicyError);
    expect(emitWarning).not.toHaveBeenCalled();
  });

  it('is only ever refused with a PolicyError, whatever it is', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 50 }),
      fc
        .array(
          fc.constantFrom(
            'rules',
            ':',
            ' ',
            '\n',
            '- ',
            '[',
            ']',
            '"',
            'principals: [a]',
            '*',
            '&a ',
            '{',
            '}',
            '#',
          ),
          { maxLength: 20 },
        )
        .map((parts) => parts.join('')),
    );
    fc.assert(
      fc.property(text, (yaml) => {
        try {
          parsePolicy(yaml);
        } catch (error) {
          expect(error).toBeInstanceOf(PolicyError);
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('a principal with *', () => {
  it('stands for what a regular expression made of it does', () => {
    const part = fc.constantFrom('a', 'b', ':', 'ab', '*', '.');
    const text = fc.array(part, { maxLength: 8 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(text, text, (pattern, name) => {
        const source = pattern.replaceAll('.', String.raw`\.`).replaceAll('*', '.*');
        expect(matchesWildcard(pattern, name)).toBe(new RegExp(`^${source}$`).test(name));
      }),
      { numRuns: 3_000 },
    );
  });

  it('takes no time, however many * it has', () => {
    const pattern = `${'*a'.repeat(50)}b`;
    expect(matchesWildcard(pattern, 'a'.repeat(100_000))).toBe(false);
  });
});
