import { describe, expect, test } from 'vitest';
import { CHROMIUM } from '../support/browser.js';
import { runService } from '../support/service.js';
import { eventually } from '../support/wait.js';
import { bodies, cells, openConsole, store } from './console.js';

/** Not in the order of the alphabet, nor of their sizes. */
const TOPICS: Readonly<Record<string, number>> = {
  'orders.paid': 3,
  'orders.created': 5,
  shipping: 20,
  'a/b-ü': 1,
};

async function withTopics() {
  const service = await runService();
  for (const [topic, count] of Object.entries(TOPICS))
    await store(service.client, topic, bodies(count));
  const page = await openConsole(service.httpAddress, '#/topics');
  const names = async (): Promise<string[]> =>
    (await cells(page.locator('table'))).map(([name]) => name);
  await eventually(async () => expect(await names()).toHaveLength(4));
  return { ...service, page, names };
}

describe.runIf(CHROMIUM)('the list of topics', () => {
  test('shows what each holds, in an order that its head changes', async () => {
    const { page, names } = await withTopics();
    const rows = await cells(page.locator('table'));
    const shipping = rows.find(([name]) => name === 'shipping')!;
    expect(shipping[1]).toBe('20');
    expect(shipping[2]).toMatch(/^[\d.]+ (B|KiB)$/);
    expect(shipping[5]).toMatch(/ ago$/);
    const sizes = async () => (await cells(page.locator('table'))).map(([, events]) => events);
    await page.getByRole('button', { name: 'Events', exact: true }).click();
    await eventually(async () => expect(await sizes()).toEqual(['20', '5', '3', '1']));
    await page.getByRole('button', { name: 'Events', exact: true }).click();
    await eventually(async () => expect(await sizes()).toEqual(['1', '3', '5', '20']));
    await page.getByRole('button', { name: 'Topic', exact: true }).click();
    await eventually(async () => expect(await names()).toEqual(Object.keys(TOPICS).toSorted()));
  });

  test('works out rates', async () => {
    const { page, client } = await withTopics();
    await eventually(async () => {
      await store(client, 'shipping', bodies(10));
      const rows = await cells(page.locator('table'));
      expect(rows.find(([name]) => name === 'shipping')![3]).toMatch(/^[1-9]/);
    });
  });

  test('is searched and opened with the keyboard alone', async () => {
    const { page, names } = await withTopics();
    await page.keyboard.press('/');
    await page.keyboard.type('orders.');
    await eventually(async () => expect(await names()).toEqual(['orders.created', 'orders.paid']));
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Topics / orders.paid' }).waitFor();
    await page.goBack();
    await page.getByRole('heading', { name: 'Topics', exact: true }).waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('nothing');
    await page.getByText('No topic holds events that begin with “nothing”.').waitFor();
    await page.keyboard.press('Escape');
    await eventually(async () => expect(await names()).toHaveLength(4));
  });

  test('leads to topics whatever their names are', async () => {
    const { page } = await withTopics();
    await page.getByRole('link', { name: 'a/b-ü' }).click();
    await page.getByText('body-1', { exact: true }).waitFor();
    await page.reload();
    await page.getByText('body-1', { exact: true }).waitFor();
  });
});
