import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Page } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { CHROMIUM } from '../support/browser.js';
import { runService, temporaryDirectory } from '../support/service.js';
import { eventually } from '../support/wait.js';
import { openConsole, store } from './console.js';

/** Where the pictures go: into docs/images for `npm run picture:console`, which alone changes them. */
const DIRECTORY = process.env.FEED_TEST_PICTURES
  ? fileURLToPath(new URL('../../docs/images', import.meta.url))
  : undefined;
/** So long (seconds) the server is busy before the picture of its numbers: with 30, the plots have something to show. */
const SECONDS = DIRECTORY ? 30 : 1;

const SIZE = { viewport: { width: 1280, height: 720 } };

describe.runIf(CHROMIUM)('pictures for the documentation', () => {
  test('can be made of each page', { timeout: 180_000 }, async () => {
    const directory = DIRECTORY ?? temporaryDirectory();
    mkdirSync(directory, { recursive: true });
    const take = (page: Page, name: string) =>
      page.screenshot({ path: join(directory, `console-${name}.png`) });
    const { client, httpAddress } = await runService();
    const topics = ['orders.created', 'orders.paid', 'orders.shipped', 'builds.log', 'kitchen'];
    const watches = topics.flatMap((topic) => [client.Watch({ topic }), client.Watch({ topic })]);
    for (const watch of watches) watch.on('error', () => {}).on('data', () => {});
    const begun = performance.now();
    for (let round = 0; performance.now() - begun < SECONDS * 1000; round++)
      for (const [index, topic] of topics.entries())
        await store(client, topic, ordersOf(round, 40 / (index + 1)));

    const overview = await openConsole(httpAddress, '', SIZE);
    await eventually(async () => expect(await overview.locator('.plot canvas').count()).toBe(6));
    await take(overview, 'overview');

    const list = await openConsole(httpAddress, '#/topics', SIZE);
    await list
      .locator('tbody tr')
      .nth(topics.length - 1)
      .waitFor();
    await take(list, 'topics');

    const topic = await openConsole(httpAddress, '#/topics/orders.created', SIZE);
    await topic.locator('.row').nth(5).click();
    await topic.getByRole('complementary', { name: 'Event' }).waitFor();
    await take(topic, 'topic');

    const streams = await openConsole(httpAddress, '#/streams', SIZE);
    await streams.locator('tbody tr').nth(topics.length).waitFor();
    await take(streams, 'streams');
    for (const watch of watches) watch.cancel();
  });
});

/** The bodies of a few events. */
const ordersOf = (round: number, count: number): string[] =>
  Array.from({ length: Math.floor(count * (1 + Math.sin(round / 20)) + 1) }, (_one, index) =>
    JSON.stringify({
      order: 1000 + round * 40 + index,
      customer: { name: ['Ann', 'Ben', 'Chloé'][index % 3], city: 'Bern' },
      items: [{ sku: 'tea-250', count: 1 + (index % 4) }],
      total: 12.5 * (1 + (index % 4)),
    }),
  );
