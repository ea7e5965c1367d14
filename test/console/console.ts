import type { BrowserContextOptions, Locator, Page } from 'playwright-core';
import { type FeedClient, upload } from '../support/client.js';
import { openPage } from '../support/browser.js';
import { freeAddresses } from '../support/ports.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';

/** Opens the console of a server at a place, such as `#/topics`. */
export const openConsole = (
  httpAddress: string,
  place = '',
  options: BrowserContextOptions = {},
): Promise<Page> => openPage(`http://${httpAddress}/console/${place}`, options);

/** Stores events with these bodies in a topic. */
export async function store(
  client: FeedClient,
  topic: string,
  bodies: readonly string[],
): Promise<void> {
  const { error } = await upload(
    client,
    bodies.map((body) => ({ topic, body })),
  );
  if (error) throw error;
}

/** `body-1` to `body-n` */
export const bodies = (count: number, first = 1): string[] =>
  Array.from({ length: count }, (_one, index) => `body-${first + index}`);

/** The bodies of the rows that are in the document, from above. */
export const shownBodies = (page: Page): Promise<string[]> =>
  page.locator('.row-body').allTextContents();

/** A page on which the rows of some 150 events are in view. */
export const TALL = { viewport: { width: 1280, height: 3800 } };

/** The cells of a table, row by row. */
export async function cells(table: Locator): Promise<string[][]> {
  const rows = await table.locator('tbody tr').all();
  return Promise.all(rows.map((row) => row.locator('td').allTextContents()));
}

/** A service that can be started again on the same ports, with the same log. */
export async function restartable() {
  const settings = { ...(await freeAddresses()), FEED_DATA_DIR: temporaryDirectory() };
  const start = (): Promise<ServiceProcess> => ServiceProcess.start(settings);
  return { httpAddress: settings.FEED_HTTP_ADDRESS, start };
}
