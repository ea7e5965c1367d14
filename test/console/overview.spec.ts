import { describe, expect, test } from 'vitest';
import { CHROMIUM } from '../support/browser.js';
import { runService } from '../support/service.js';
import { eventually } from '../support/wait.js';
import { bodies, openConsole, store } from './console.js';

/** Each fact of the overview by its name: the value, and the smaller text below it. */
type Facts = Record<string, [string, string]>;

describe.runIf(CHROMIUM)('the overview', () => {
  test('shows the numbers of the server, and goes on', async () => {
    const { client, httpAddress } = await runService();
    await store(client, 'orders', bodies(100));
    const watch = client.Watch({ topic: 'orders' });
    watch.on('error', () => {});
    const page = await openConsole(httpAddress);
    const facts = async (): Promise<Facts> => {
      const all = await page.locator('.fact').all();
      const read = all.map((fact) => fact.locator('dt, dd').allTextContents());
      return Object.fromEntries(
        (await Promise.all(read)).map(([name, ...rest]) => [name, rest]),
      ) as Facts;
    };
    await eventually(async () => {
      const now = await facts();
      expect(now['Open watches']).toEqual(['1', '0 behind']);
      expect(now['Uploads / chats']).toEqual(['0 / 0', '0 rooms']);
      expect(now['Log'][0]).toMatch(/^[\d.]+ (B|KiB|MiB)$/);
      expect(now['Oldest event'][0]).toMatch(/^\d+ s ago$/);
    });
    await expect(page.locator('.about').textContent()).resolves.toMatch(
      /^ready, Feed .*Engine lmdb: an acknowledgement means flushed to disk/,
    );
    await expect(page.locator('.plot canvas').count()).resolves.toBe(6);

    await store(client, 'orders', bodies(1000));
    await eventually(async () => {
      const now = await facts();
      expect(now['Events in'][0]).toMatch(/^[1-9][\d.,]*\/s$/);
      expect(now['Deliveries'][0]).toMatch(/^[1-9][\d.,]*\/s$/);
      expect(now['Acknowledged (p50 / p99)'][0]).toMatch(/^[\d.]+ (µs|ms|s) \/ [\d.]+ (µs|ms|s)$/);
    });
    watch.cancel();
    await eventually(async () => expect((await facts())['Open watches'][0]).toBe('0'));
  });

  test('shows the values at the pointer, of one moment in all plots', async () => {
    const { client, httpAddress } = await runService();
    const page = await openConsole(httpAddress);
    // A step of the server's numbers takes 5 s.
    await eventually(async () => {
      await store(client, 'orders', bodies(10));
      await page
        .locator('.u-over')
        .first()
        .hover({ position: { x: 300, y: 40 } });
      expect(await page.locator('.plot time').count()).toBe(6);
    });
    const times = new Set(await page.locator('.plot time').allTextContents());
    expect(times.size).toBe(1);
  });
});
