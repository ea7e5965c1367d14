import { expect, it, vi } from 'vitest';
import { parsePolicy } from '../../src/auth/policy.js';
import { Session } from '../../src/auth/session.js';

it.each([
  ['32 topics of an upload', 'upload', 32],
  ['all rooms of a chat', 'chat', 1_000],
] as const)('a session remembers %s, of a thousand', (_, verb, most) => {
  const policy = parsePolicy('rules: [{principals: [ann], verbs: [upload, chat], topics: [">"]}]');
  const session = new Session('ann', Infinity, () => policy);
  for (let i = 0; i < 1_000; i++) expect(session.may(verb, `topic-${i}`)).toBe(true);
  expect(session.remembered).toBe(most);

  const allows = vi.spyOn(policy, 'allows');
  expect(session.problem()).toBeUndefined();
  expect(allows).toHaveBeenCalledTimes(most);
  allows.mockClear();
  expect(session.may(verb, 'topic-999')).toBe(true);
  expect(allows).not.toHaveBeenCalled();
});
