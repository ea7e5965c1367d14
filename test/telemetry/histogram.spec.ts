import { expect, test } from 'vitest';
import { Histogram } from '../../src/telemetry/histogram.js';

test('a value counts up to the least bound that is not below it, or in none', () => {
  const histogram = new Histogram([1, 2, 5]);
  for (const value of [0, 1, 1.5, 2, 5, 6]) histogram.observe(value);
  expect(histogram.counts).toEqual([2, 2, 1]);
  expect(histogram.count).toBe(6);
  expect(histogram.sum).toBe(15.5);
});
