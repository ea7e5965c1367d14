import { expect, test } from 'vitest';
import type { Topic } from '../src/api/topics.ts';
import { measure } from '../src/topics/rates.ts';

const topicOf = (events: number, oldest?: string): Topic => ({
  topic: 'orders',
  events,
  bytes: 0,
  watches: 0,
  ...(oldest && { oldest: { cursor: oldest, storedAt: '2026-01-31T09:00:00Z' } }),
});

test('the rate of a topic comes from two looks, and stays while events are removed', () => {
  const first = measure(new Map(), [topicOf(100, 'a')], 1000);
  expect(first.get('orders')!.rate).toBe(undefined);
  const second = measure(first, [topicOf(150, 'a')], 6000);
  expect(second.get('orders')!.rate).toBe(10);
  const removed = measure(second, [topicOf(50, 'c')], 11_000);
  expect(removed.get('orders')!.rate).toBe(10);
  expect(measure(removed, [topicOf(50, 'c')], 16_000).get('orders')!.rate).toBe(0);
});
