import { gzipSync } from 'node:zlib';
import type { Page } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { CHROMIUM } from '../support/browser.js';
import { runService } from '../support/service.js';
import { bodies, openConsole, store } from './console.js';

const PLACES = ['#/', '#/topics', '#/topics/orders', '#/streams'];

const ground = (page: Page): Promise<string> =>
  page.evaluate<string>('getComputedStyle(document.documentElement).backgroundColor');

describe.runIf(CHROMIUM)('the console', () => {
  test.each(PLACES)('fits a narrow screen: %s', async (place) => {
    const { client, httpAddress } = await runService();
    await store(client, 'orders', [...bodies(30), JSON.stringify({ text: 'x'.repeat(2000) })]);
    const page = await openConsole(httpAddress, place, { viewport: { width: 360, height: 640 } });
    await page.locator('h1').waitFor();
    if (place === '#/topics/orders') await page.locator('.row').first().click();
    const width = await page.evaluate<number>('document.documentElement.scrollWidth');
    expect(width).toBeLessThanOrEqual(360);
  });

  test('is light or dark as the system is, until the reader chooses', async () => {
    const { httpAddress } = await runService();
    const page = await openConsole(httpAddress, '', { colorScheme: 'dark' });
    const dark = await ground(page);
    await page.emulateMedia({ colorScheme: 'light' });
    const light = await ground(page);
    expect(light).not.toBe(dark);
    await page.getByLabel('Colours').selectOption('dark');
    expect(await ground(page)).toBe(dark);
    await page.reload();
    expect(await ground(page)).toBe(dark);
    await page.getByLabel('Colours').selectOption('system');
    expect(await ground(page)).toBe(light);
  });

  test('shows itself also where the browser has no language that is one', async () => {
    const { httpAddress } = await runService();
    const page = await openConsole(httpAddress);
    await page.addInitScript(
      "Object.defineProperty(Navigator.prototype, 'language', { get: () => 'en-US@posix' })",
    );
    await page.reload();
    await page.locator('h1').waitFor();
  });

  test('is small, and asks for nothing from elsewhere', async () => {
    const { httpAddress } = await runService();
    const page = await openConsole(httpAddress);
    await page.locator('h1').waitFor();
    const files = await page.evaluate<string[]>(
      `[location.href, ...performance.getEntriesByType('resource').map(({ name }) => name)]`,
    );
    const own = files.filter((file) => file.includes('/console/'));
    expect(own.length).toBeGreaterThanOrEqual(3);
    const sizes = own.map(async (file) => {
      const response = await fetch(file);
      const policy = response.headers.get('content-security-policy')!;
      expect(policy).toContain("default-src 'none'");
      expect(policy).not.toContain('unsafe');
      return gzipSync(new Uint8Array(await response.arrayBuffer())).length;
    });
    const total = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
    expect(total).toBeLessThan(150_000);
  });
});
