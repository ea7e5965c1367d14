import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { CHROMIUM } from '../support/browser.js';
import { runService, temporaryDirectory } from '../support/service.js';
import { Issuer } from '../support/tokens.js';
import { eventually } from '../support/wait.js';
import { openConsole, shownBodies, TALL } from './console.js';

/** Ann may do everything; Ben may only watch `orders`. */
const POLICY = `
rules:
  - { principals: [ann], verbs: [admin, watch, upload], topics: ['>'] }
  - { principals: [ben], verbs: [watch], topics: [orders] }
`;

async function withTokens() {
  const issuer = await Issuer.create();
  const policy = join(temporaryDirectory(), 'policy.yaml');
  writeFileSync(policy, POLICY);
  const service = await runService({ ...issuer.settings(), FEED_POLICY_FILE: policy });
  const ann = await issuer.token({ sub: 'ann' });
  const storeAs = (lines: readonly string[]): Promise<Response> =>
    fetch(`http://${service.httpAddress}/v1/events?topic=orders`, {
      method: 'POST',
      headers: { authorization: `Bearer ${ann}`, 'content-type': 'text/plain' },
      body: lines.join('\n'),
    });
  return { ...service, issuer, ann, storeAs };
}

/** Signs the reader out, which loads the page anew. */
async function signOut(page: Page): Promise<void> {
  const loaded = page.waitForEvent('load', { timeout: 30_000 });
  await page.getByRole('button', { name: 'Sign out' }).click();
  await loaded;
}

describe.runIf(CHROMIUM)('where the server asks who calls', () => {
  test('the console asks for a token, which it forgets when the reader signs out', async () => {
    const { httpAddress, issuer, ann } = await withTokens();
    const page = await openConsole(httpAddress);
    const dialog = page.getByRole('dialog', { name: 'Sign in' });
    await dialog.waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('Escape');
    await dialog.getByLabel('Token').fill(await issuer.token({ expiresIn: -60 }));
    await page.keyboard.press('Enter');
    await expect(dialog.getByRole('alert').textContent()).resolves.toContain('expired');
    await dialog.getByLabel('Token').fill(ann);
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    await page.locator('.fact').first().waitFor();
    await page.locator('.caller').getByText('ann').waitFor();
    await page.reload();
    await page.locator('.fact').first().waitFor();
    expect(await page.evaluate('document.cookie')).toBe('');
    await signOut(page);
    await dialog.waitFor();
    await page.reload();
    await dialog.waitFor();
  });

  test('a tail goes on with the next token when one expires, without a lost or doubled event', async () => {
    const { httpAddress, issuer, ann, storeAs } = await withTokens();
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    const dialog = page.getByRole('dialog', { name: 'Sign in' });
    await dialog.waitFor();
    // A busy machine needs seconds to show the first events.
    await dialog.getByLabel('Token').fill(await issuer.token({ sub: 'ann', expiresIn: 20 }));
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    await storeAs(['body-1', 'body-2']);
    await eventually(async () => expect(await shownBodies(page)).toEqual(['body-2', 'body-1']));
    await dialog.waitFor();
    await storeAs(['body-3']);
    await dialog.getByLabel('Token').fill(ann);
    await page.keyboard.press('Enter');
    await eventually(async () =>
      expect(await shownBodies(page)).toEqual(['body-3', 'body-2', 'body-1']),
    );
  });

  test('a reader who has signed in is not asked again because of a request from before, and the tail goes on', async () => {
    const { httpAddress, ann, storeAs } = await withTokens();
    const page = await openConsole(httpAddress, '#/', TALL);
    // The first request of the tail is refused only after the reader has signed in.
    const refused = Promise.withResolvers<number>();
    const signedIn = Promise.withResolvers<void>();
    await page.route(
      '**/v1/events?**',
      async (route) => {
        const response = await route.fetch();
        refused.resolve(response.status());
        await signedIn.promise;
        await route.fulfill({ response });
      },
      { times: 1 },
    );
    await page.goto(`http://${httpAddress}/console/#/topics/orders`);
    expect(await refused.promise).toBe(401);
    const dialog = page.getByRole('dialog', { name: 'Sign in' });
    await dialog.getByLabel('Token').fill(ann);
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    signedIn.resolve();
    await storeAs(['body-1']);
    await eventually(async () => expect(await shownBodies(page)).toEqual(['body-1']));
    expect(await dialog.count()).toBe(0);
  });

  test.each([
    ['who has signed out', signOut],
    ['whose token is gone', (page: Page) => page.context().clearCookies()],
  ])('the next reader sees nothing of one %s', async (_, leave) => {
    const { httpAddress, issuer, ann, storeAs } = await withTokens();
    await storeAs(['body-1']);
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    const dialog = page.getByRole('dialog', { name: 'Sign in' });
    await dialog.getByLabel('Token').fill(ann);
    await page.keyboard.press('Enter');
    await eventually(async () => expect(await shownBodies(page)).toEqual(['body-1']));
    await leave(page);
    // Eve may do nothing.
    await dialog.getByLabel('Token').fill(await issuer.token({ sub: 'eve' }));
    await page.keyboard.press('Enter');
    await page.locator('.caller').getByText('eve').waitFor();
    await storeAs(['body-2']);
    await eventually(async () =>
      expect(await page.getByRole('alert').allTextContents()).toEqual([
        expect.stringContaining('TOPIC_FORBIDDEN'),
      ]),
    );
    expect(await shownBodies(page)).toEqual([]);
  });

  test('a caller who may not administer sees why, and can still watch what they may', async () => {
    const { httpAddress, issuer, storeAs } = await withTokens();
    await storeAs(['body-1']);
    const page = await openConsole(httpAddress, '#/topics', TALL);
    await page.getByLabel('Token').fill(await issuer.token({ sub: 'ben' }));
    await page.keyboard.press('Enter');
    await page.locator('.caller').getByText('ben').waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('orders');
    await page.keyboard.press('Enter');
    await eventually(async () => expect(await shownBodies(page)).toEqual(['body-1']));
    await page.getByRole('link', { name: 'Streams' }).click();
    await page.getByRole('link', { name: 'Overview' }).click();
    await expect(page.getByRole('alert').textContent()).resolves.toContain('TOPIC_FORBIDDEN');
  });
});
