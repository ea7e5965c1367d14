import { afterEach, expect, test, vi } from 'vitest';
import { Progress } from '../../src/cli/progress.js';

afterEach(() => void vi.useRealTimers());

test('without a terminal, progress is written again only once it has changed', () => {
  vi.useFakeTimers();
  let written = '';
  let text = '1 line';
  const progress = new Progress(() => ({ text }), {
    isTTY: false,
    write: (more: string) => ((written += more), true),
  });
  progress.start();
  vi.advanceTimersByTime(60_000);
  expect(written).toBe('1 line\n');
  text = '2 lines';
  vi.advanceTimersByTime(60_000);
  progress.stop();
  expect(written).toBe('1 line\n2 lines\n');
});
