import {
  type Browser,
  type BrowserContextOptions,
  chromium as launcher,
  type Page,
} from 'playwright-core';
import { expect, onTestFinished } from 'vitest';
import { chromium } from '../../scripts/chromium.mjs';

/** Chromium; undefined where it can't be had, which is printed. */
export const CHROMIUM: { readonly path: string; readonly env: Record<string, string> } | undefined =
  (() => {
    const found = chromium();
    if ('path' in found) return found;
    if (process.env.FEED_TEST_BROWSER === 'required') throw new Error(found.missing);
    process.stderr.write(`tests with a browser are left out: ${found.missing}\n`);
    return undefined;
  })();

/** Starts a browser, which ends with the test. */
async function startBrowser(): Promise<Browser> {
  const { path, env } = CHROMIUM!;
  const browser = await launcher.launch({
    executablePath: path,
    env: { ...process.env, ...env },
    // The sandbox needs a user other than root, and rights that containers lack.
    args: ['--no-sandbox'],
  });
  onTestFinished(() => browser.close());
  return browser;
}

/**
 * Opens a page in a browser of its own. The test fails if the page throws an error, breaks its content security policy, or
 * asks another server for anything.
 */
export async function openPage(url: string, options: BrowserContextOptions = {}): Promise<Page> {
  const browser = await startBrowser();
  const context = await browser.newContext({
    locale: 'en-US',
    permissions: ['clipboard-read', 'clipboard-write'],
    ...options,
  });
  const page = await context.newPage();
  // Playwright's own 30 s are too few for a page on a busy machine.
  page.setDefaultTimeout(120_000);
  const faults: string[] = [];
  page.on('pageerror', (error) => faults.push(String(error.stack)));
  page.on('console', (message) => {
    if (message.text().includes('Content Security Policy')) faults.push(message.text());
  });
  page.on('request', (request) => {
    if (new URL(request.url()).host !== new URL(url).host) faults.push(request.url());
  });
  onTestFinished(() => expect(faults).toEqual([]));
  await page.goto(url);
  return page;
}
