import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { onExpiry } from '../../src/tls/expiry.js';

const DAY = 24 * 60 * 60 * 1_000;

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('a certificate of more days than a timer can wait ends at its date, and not before', () => {
  let ended = 0;
  onExpiry(Date.now() + 60 * DAY, () => ended++);
  vi.advanceTimersByTime(60 * DAY - 1);
  expect(ended).toBe(0);
  vi.advanceTimersByTime(1);
  expect(ended).toBe(1);
  vi.advanceTimersByTime(60 * DAY);
  expect(ended).toBe(1);
});

test('a certificate ends within a minute of its date also where the clock is set forward', () => {
  let ended = 0;
  onExpiry(Date.now() + DAY, () => ended++);
  vi.setSystemTime(Date.now() + 2 * DAY);
  vi.advanceTimersByTime(60_000);
  expect(ended).toBe(1);
});

test('nothing follows the end of the call', () => {
  let ended = 0;
  onExpiry(Date.now() + DAY, () => ended++)();
  vi.advanceTimersByTime(2 * DAY);
  expect(ended).toBe(0);
});
