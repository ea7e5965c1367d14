import type { Page } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { CHROMIUM } from '../support/browser.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually } from '../support/wait.js';
import { openConsole, store } from './console.js';

/** `npm run busy-tail` has 20 minutes. */
const SECONDS = Number(process.env.FEED_TEST_TAIL_SECONDS ?? 10);
const PER_SECOND = 5000;
/** What the page may hold after a collection of garbage, in bytes. It keeps 2,000 events of some 300 bytes. */
const MOST_HEAP = 24 * 2 ** 20;

/** Returns what the page holds after a collection of garbage, in bytes. */
async function heap(page: Page): Promise<number> {
  const session = await page.context().newCDPSession(page);
  await session.send('HeapProfiler.enable');
  await session.send('HeapProfiler.collectGarbage');
  const { usedSize } = await session.send('Runtime.getHeapUsage');
  await session.detach();
  return usedSize;
}

describe.runIf(CHROMIUM)('a busy tail', () => {
  test(
    `of ${PER_SECOND} events a second for ${SECONDS} s counts every event, says what it leaves out, answers the reader, and does not grow`,
    { timeout: (SECONDS + 400) * 1000 },
    async () => {
      const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
      const client = service.connect();
      const page = await openConsole(service.httpAddress, '#/topics/orders');
      await page.locator('.state-live').waitFor();
      const batch = Array.from({ length: PER_SECOND / 10 }, (_one, index) =>
        JSON.stringify({
          order: index,
          customer: { name: 'Ann', city: 'Bern' },
          text: 'x'.repeat(200),
        }),
      );
      // How long the reader waits at most for a key to take effect, in milliseconds, as the page itself sees it.
      await page.evaluate(`
        globalThis.longest = 0;
        let last = performance.now();
        setInterval(() => {
          const now = performance.now();
          longest = Math.max(longest, now - last);
          last = now;
        }, 10);
      `);
      const heaps: number[] = [];
      const begun = performance.now();
      let stored = 0;
      for (let second = 1; second <= SECONDS; second++) {
        for (let part = 0; part < 10; part++) {
          await store(client, 'orders', batch);
          stored += batch.length;
        }
        await eventually(() => expect(performance.now() - begun).toBeGreaterThan(second * 1000));
        if (second % Math.ceil(SECONDS / 10) === 0) heaps.push(await heap(page));
      }
      const line = page.locator('.line');
      // The page needs longer for them where other work takes the machine.
      await eventually(
        async () =>
          expect(await line.textContent()).toMatch(
            new RegExp(
              `${shortened(stored)} events, the newest 2,000 are kept, .* older ones left out$`,
            ),
          ),
        120_000,
      );
      const longest = await page.evaluate<number>('longest');
      const nodes = await page.locator('*').count();
      process.stdout.write(
        `busy tail: ${stored} events in ${Math.round(performance.now() - begun)} ms, heap ${heaps.map((size) => `${(size / 2 ** 20).toFixed(1)} MiB`).join(', ')}, the page was busy for ${Math.round(longest)} ms at most, ${nodes} elements\n`,
      );
      for (const size of heaps) expect(size).toBeLessThan(MOST_HEAP);
      expect(nodes).toBeLessThan(500);
      await page.getByRole('button', { name: 'Pause' }).click();
      await page.getByText('Paused', { exact: true }).waitFor();
    },
  );
});

/** A number as the console writes it, such as `50,000` or `1.2M`. */
function shortened(value: number): string {
  const format: Intl.NumberFormatOptions =
    value < 100_000 ? {} : { notation: 'compact', maximumFractionDigits: 1 };
  return new Intl.NumberFormat('en', format).format(value);
}
