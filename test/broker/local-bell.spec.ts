import { expect, it } from 'vitest';
import { LocalBell } from '../../src/broker/local-bell.js';

function listener() {
  const self = { rings: 0, onRing: () => void self.rings++ };
  return self;
}

it('wakes the listeners of a pattern once, however many of its topics ring together', () => {
  const bell = new LocalBell();
  const [all, one, other] = [listener(), listener(), listener()];
  bell.subscribe('>', all);
  bell.subscribe('many.7', one);
  bell.subscribe('other.>', other);
  bell.ring(Array.from({ length: 1_000 }, (_, i) => `many.${i}`));
  expect([all.rings, one.rings, other.rings]).toEqual([1, 1, 0]);
});

it('counts a listener of a topic once, however many of its patterns the topic has', () => {
  const bell = new LocalBell();
  const [a, b, c] = [listener(), listener(), listener()];
  for (const topic of ['>', 'x.*', 'x.y']) bell.subscribe(topic, a);
  for (const topic of ['x.*', 'x.>']) bell.subscribe(topic, b);
  bell.subscribe('x', c);
  expect(['x.y', 'x.z', 'x', 'y'].map((topic) => bell.listenersOf(topic))).toEqual([2, 2, 2, 1]);
  bell.unsubscribe('>', a);
  bell.unsubscribe('>', a);
  expect(['x.y', 'x', 'y'].map((topic) => bell.listenersOf(topic))).toEqual([2, 1, 0]);
  expect(bell.subscriptions).toBe(5);
});
