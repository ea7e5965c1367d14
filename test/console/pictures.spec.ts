import { mkdirSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Page } from 'playwright-core';
import { describe, test } from 'vitest';
import { CHROMIUM } from '../support/browser.js';
import type { FeedClient } from '../support/client.js';
import { runService, temporaryDirectory } from '../support/service.js';
import { openConsole, store } from './console.js';

/** `npm run picture:console` alone writes into docs/images. */
const DIRECTORY = process.env.FEED_TEST_PICTURES
  ? fileURLToPath(new URL('../../docs/images', import.meta.url))
  : undefined;
/** The server is busy for so long (seconds) before the pictures are taken: as long as its plots are, for docs/images. */
const SECONDS = DIRECTORY ? 15 * 60 : 1;

const SIZE = { viewport: { width: 1280, height: 720 } };
const TOPICS = ['orders.created', 'orders.paid', 'orders.shipped', 'builds.log', 'kitchen'];

describe.runIf(CHROMIUM)('pictures for the documentation', () => {
  test('can be made of each page', { timeout: (SECONDS + 400) * 1000 }, async () => {
    const directory = DIRECTORY ?? temporaryDirectory();
    mkdirSync(directory, { recursive: true });
    const { client, httpAddress } = await runService();
    const end = busy(client);

    const picture = async (name: string, place: string, isReady: (page: Page) => Promise<void>) => {
      const page = await openConsole(httpAddress, '', SIZE);
      await hideMachine(page);
      await page.goto(`http://${httpAddress}/console/${place}`);
      await page.reload();
      await isReady(page);
      await page.screenshot({ path: join(directory, `console-${name}.png`) });
      await page.close();
    };
    await sleep(SECONDS * 1000);
    await picture('overview', '#/', async (page) => {
      await page
        .locator('.fact')
        .getByText(/\d\/s$/)
        .first()
        .waitFor();
      await page.locator('.plot canvas').nth(5).waitFor();
    });
    await picture('topics', '#/topics', async (page) => {
      // The rates are known at the second look.
      await page.locator('tbody td:nth-child(4)').getByText(/^\d/).first().waitFor();
    });
    await picture('topic', '#/topics/orders.created', async (page) => {
      await page
        .locator('.line')
        .getByText(/\d\/s$/)
        .waitFor();
      // Without force, it would wait until no upload moves the row.
      await page.locator('.row').nth(5).click({ force: true });
      await page.getByRole('complementary', { name: 'Event' }).waitFor();
    });
    await picture('streams', '#/streams', async (page) => {
      await page.locator('tbody tr').nth(TOPICS.length).waitFor();
    });
    await end();
  });
});

/** Keeps a server busy with uploads, in waves, and with watches and a chat. Returns what ends it. */
function busy(client: FeedClient): () => Promise<void> {
  const watches = TOPICS.flatMap((topic, index) =>
    Array.from({ length: index + 1 }, () => client.Watch({ topic })),
  );
  const chats = ['Ann', 'Ben'].map((from) => {
    const chat = client.Chat();
    chat.write({ room: 'kitchen', from, text: 'hello' });
    return chat;
  });
  const calls = [...watches, ...chats];
  for (const call of calls) call.on('error', () => {}).on('data', () => {});
  const end = new AbortController();
  const uploads = (async () => {
    for (let round = 0; !end.signal.aborted; round++) {
      const wave = 1.2 + Math.sin(round / 500);
      for (const [index, topic] of TOPICS.entries())
        await store(client, topic, orders(round, Math.ceil((20 * wave) / (index + 1))));
      await sleep(50);
    }
  })();
  return async () => {
    end.abort();
    await uploads;
    for (const call of calls) call.cancel();
  };
}

/** The bodies of a few events. */
const orders = (round: number, count: number): string[] =>
  Array.from({ length: count }, (_one, index) =>
    JSON.stringify({
      order: 1000 + round * 44 + index,
      customer: { name: ['Ann', 'Ben', 'Chloé'][index % 3], city: 'Bern' },
      items: [{ sku: 'tea-250', count: 1 + (index % 4) }],
      total: 12.5 * (1 + (index % 4)),
    }),
  );

/** The pictures show the replica of a chart in the place of the machine that they are made on. */
const hideMachine = (page: Page): Promise<unknown> =>
  page.route(/\/v1\/(stats|streams|topics)/, async (route) => {
    const response = await route.fetch();
    const body = (await response.text()).replaceAll(`"${hostname()}/`, '"feed-0/');
    await route.fulfill({ response, body });
  });
