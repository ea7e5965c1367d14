import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { Child } from '../support/child.js';
import type { ClientMethods } from '../costs/client-main.js';
import { ServiceProcess } from '../support/service.js';
import type { HeapMethods } from './heap-main.js';

/** MiB. */
const BOUND = 32;

function startProcess(env: NodeJS.ProcessEnv = {}): Child<HeapMethods> {
  const child = new Child<HeapMethods>(new URL('heap-main.ts', import.meta.url), { env });
  onTestFinished(() => child.kill());
  return child;
}

test('the young generation stays within its bound', async () => {
  const child = startProcess();
  await child.call('tune');
  expect(await child.call('grow')).toBeLessThanOrEqual(BOUND);
});

test('V8 by itself would grow it further, so that the bound is for something', async () => {
  expect(await startProcess().call('grow')).toBeGreaterThan(BOUND);
});

/** Says at its end how often all of the heap was collected, and lets V8 grow it as it likes, if so told. */
const counting = (untuned: boolean): string => `
  import { PerformanceObserver } from 'node:perf_hooks';
  import { setFlagsFromString } from 'node:v8';
  let collections = 0;
  new PerformanceObserver((list) => {
    collections += list.getEntries().filter(({ detail }) => detail.kind === 4).length;
    if (!${untuned}) return;
    setFlagsFromString('--heap-growing-percent=0');
    setFlagsFromString('--no-external-memory-accounted-in-global-limit');
  }).observe({ type: 'gc' });
  process.once('exit', () => console.error('collections: ' + collections));
`;

/** In a service of its own, from its start to the end of an upload. */
async function collections(events: number, untuned: boolean): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'feed-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const service = await ServiceProcess.start({
    FEED_DATA_DIR: directory,
    NODE_OPTIONS: `--import="data:text/javascript,${encodeURIComponent(counting(untuned))}"`,
  });
  const client = new Child<ClientMethods>(new URL('../costs/client-main.ts', import.meta.url));
  onTestFinished(() => client.kill());
  await client.call('connect', service.grpcAddress);
  await client.call('upload', 'heap', events, 200);
  await service.kill('SIGTERM');
  return Number(/collections: (\d+)/.exec(service.output.join(''))![1]);
}

test('uploads at full speed have the whole heap collected much less often than V8 would by itself', async () => {
  const events = 1_000_000;
  const [tuned, untuned] = [await collections(events, false), await collections(events, true)];
  console.log(
    `collections of the whole heap in a million uploads: ${tuned}, by V8 itself ${untuned}`,
  );
  expect(tuned).toBeLessThan(0.75 * untuned);
}, 180_000);

test('the whole heap is collected while the service loads, and not again in its first work', async () => {
  expect(await collections(50_000, false)).toBe(1);
});
