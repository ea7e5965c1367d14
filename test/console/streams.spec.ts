import { describe, expect, test } from 'vitest';
import { CHROMIUM } from '../support/browser.js';
import { errorInfo, failure } from '../support/client.js';
import { runService } from '../support/service.js';
import { eventually } from '../support/wait.js';
import { cells, openConsole } from './console.js';

describe.runIf(CHROMIUM)('the streams', () => {
  test('are listed, searched, and ended after a question', async () => {
    const { client, httpAddress } = await runService();
    const [first, second] = ['orders', 'shipping'].map((topic) => client.Watch({ topic }));
    const ended = failure(first);
    second.on('error', () => {});
    const page = await openConsole(httpAddress, '#/streams');
    const table = page.locator('table');
    await eventually(async () => {
      const rows = await cells(table);
      expect(rows.map(([call, topic]) => `${call} ${topic}`).toSorted()).toEqual([
        'Watch orders',
        'Watch shipping',
      ]);
      expect(rows[0][3]).toMatch(/^127\.0\.0\.1:\d+$/);
      expect(rows[0][7]).toBe('0');
    });
    await page.keyboard.press('/');
    await page.keyboard.type('orders');
    await page.getByText('1 of 2 open calls.').waitFor();

    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    const dialog = page.getByRole('dialog', { name: 'End this stream?' });
    await expect(dialog.textContent()).resolves.toContain('Watch of orders');
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    await page.getByText('1 of 2 open calls.').waitFor();

    await page.getByRole('button', { name: /^End Watch/ }).click();
    await dialog.getByRole('button', { name: 'End it' }).click();
    await page.getByText('0 of 1 open call.').waitFor();
    expect(errorInfo((await ended).metadata)?.reason).toBe('ENDED_BY_OPERATOR');
    second.cancel();
  });

  test('that end late leave the question about another one open', async () => {
    const { client, httpAddress } = await runService();
    const calls = ['orders', 'shipping'].map((topic) => client.Watch({ topic }));
    for (const call of calls) call.on('error', () => {});
    const page = await openConsole(httpAddress, '#/streams');
    const asked = Promise.withResolvers<void>();
    const answered = Promise.withResolvers<void>();
    await page.route('**/v1/streams/*', async (route) => {
      asked.resolve();
      await answered.promise;
      await route.continue();
    });
    const dialog = page.getByRole('dialog', { name: 'End this stream?' });
    const ask = (topic: string): Promise<void> =>
      page.locator('tr', { hasText: topic }).getByRole('button').click();
    await ask('orders');
    await dialog.getByRole('button', { name: 'End it' }).click();
    await asked.promise;
    await page.keyboard.press('Escape');
    await ask('shipping');
    const ended = page.waitForResponse('**/v1/streams/*');
    answered.resolve();
    await ended;
    await page.getByText('1 open call.').waitFor();
    expect(await dialog.allTextContents()).toEqual([expect.stringContaining('Watch of shipping')]);
    calls[1].cancel();
  });

  test('that an operator ends are not made again by the console itself', async () => {
    const { httpAddress } = await runService();
    const tail = await openConsole(httpAddress, '#/topics/orders');
    await tail.locator('.state-live').waitFor();
    const page = await openConsole(httpAddress, '#/streams');
    await page.getByRole('button', { name: /^End Watch, HTTP/ }).click();
    await page.getByRole('button', { name: 'End it' }).click();
    await expect(tail.getByRole('alert').textContent()).resolves.toContain('ENDED_BY_OPERATOR');
    await page.getByText('Nobody is connected.').waitFor();
    await tail.getByRole('button', { name: 'Begin again with the newest' }).click();
    await page.getByText('1 open call.').waitFor();
  });
});
