import { PassThrough } from 'node:stream';
import { afterEach, expect, test, vi } from 'vitest';
import { Progress } from '../../src/cli/progress.js';

afterEach(() => void vi.useRealTimers());

test('without a terminal, progress is written again only once it has changed', () => {
  vi.useFakeTimers();
  const written: string[] = [];
  let text = '1 line';
  const stream = new PassThrough({ encoding: 'utf8' });
  stream.on('data', (line: string) => written.push(line));
  const progress = new Progress(() => ({ text }), stream);
  progress.start();
  vi.advanceTimersByTime(60_000);
  expect(written).toEqual(['1 line\n']);
  text = '2 lines';
  vi.advanceTimersByTime(60_000);
  progress.stop();
  expect(written).toEqual(['1 line\n', '2 lines\n']);
});
