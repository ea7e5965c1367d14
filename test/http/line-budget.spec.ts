import { expect, test } from 'vitest';
import { LimitHits } from '../../src/feed/limit-hits.js';
import { LineBudget } from '../../src/http/line-budget.js';

test('beyond the bound, the upload that holds most is ended once, and what it still gets counts no more', () => {
  const hits = new LimitHits();
  const budget = new LineBudget(100, hits);
  const ended: string[] = [];
  const [small, large] = ['small', 'large'].map((name) => ({ abort: () => void ended.push(name) }));
  budget.note(small, 30);
  budget.note(large, 60);
  budget.note(small, 50);
  expect(ended).toEqual(['large']);
  budget.note(small, 90);
  budget.note(large, 70);
  budget.note(large, 0);
  expect(ended).toEqual(['large']);
  expect([...hits.counts]).toEqual([['FEED_RECEIVE_BYTES', 1]]);
  budget.note(small, 101);
  expect(ended).toEqual(['large', 'small']);
});
