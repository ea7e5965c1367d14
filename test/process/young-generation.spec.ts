import { expect, onTestFinished, test } from 'vitest';
import { Child } from '../support/child.js';
import type { HeapMethods } from './young-generation-main.js';

/** MiB. */
const BOUND = 32;

function startProcess(): Child<HeapMethods> {
  const child = new Child<HeapMethods>(new URL('young-generation-main.ts', import.meta.url));
  onTestFinished(() => child.kill());
  return child;
}

test('the young generation stays within its bound', async () => {
  const child = startProcess();
  await child.call('bound');
  expect(await child.call('grow')).toBeLessThanOrEqual(BOUND);
});

test('V8 by itself would grow it further, so that the bound is for something', async () => {
  expect(await startProcess().call('grow')).toBeGreaterThan(BOUND);
});
