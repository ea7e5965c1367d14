import { describe, expect, onTestFinished, test } from 'vitest';
import { CHROMIUM } from '../support/browser.js';
import { runService } from '../support/service.js';
import { eventually, until } from '../support/wait.js';
import { bodies, openConsole, restartable, shownBodies, store, TALL } from './console.js';

// Services start several times in each.
describe.runIf(CHROMIUM)('a server that is lost', { timeout: 400_000 }, () => {
  test.each(['SIGKILL', 'SIGTERM'] as const)(
    'is said to be (%s), and when it is back, the tail has each event once, in order',
    async (signal) => {
      const { httpAddress, start } = await restartable();
      let service = await start();
      const page = await openConsole(httpAddress, '#/topics/orders', TALL);
      await page.locator('.state-live').waitFor();
      let stored = 0;
      const storeMore = async (): Promise<void> => {
        await store(service.connect(), 'orders', bodies(20, stored + 1));
        stored += 20;
      };
      for (let round = 0; round < 3; round++) {
        await storeMore();
        await service.kill(signal);
        await page.getByText(/The server has not answered since/).waitFor();
        service = await start();
        await storeMore();
        await eventually(async () =>
          expect(await shownBodies(page)).toEqual(bodies(stored).toReversed()),
        );
        await page.getByText(/The server has not answered since/).waitFor({ state: 'hidden' });
      }
    },
  );

  test('keeps its numbers on the page, which go on when it is back', async () => {
    const { httpAddress, start } = await restartable();
    const service = await start();
    await store(service.connect(), 'orders', bodies(5));
    const page = await openConsole(httpAddress, '#/topics');
    const row = page.locator('tbody tr');
    await row.waitFor();
    await service.kill('SIGKILL');
    await page.getByText(/The server has not answered since/).waitFor();
    await expect(row.textContent()).resolves.toContain('orders5');
    const next = await start();
    await store(next.connect(), 'orders', bodies(5));
    await eventually(async () => expect(await row.textContent()).toContain('orders10'));
  });

  test.each([
    ['of something between', 'text/html', '<h1>Sign in to the network</h1>'],
    ['that breaks in the middle', 'application/json', '{"topics":[{"topic":"ord'],
  ])(
    'is asked again after an answer %s, though its status is good',
    async (_, contentType, body) => {
      const { httpAddress, client } = await runService();
      await store(client, 'orders', bodies(5));
      const page = await openConsole(httpAddress, '#/topics');
      const row = page.locator('tbody tr');
      await eventually(async () => expect(await row.textContent()).toContain('orders5'));
      let answers = 0;
      await page.route('**/v1/topics**', async (route) => {
        answers++;
        await route.fulfill({ status: 200, contentType, body });
      });
      await until(() => answers >= 2, 'another request after the broken answer');
      await page.getByText(/The server has not answered since/).waitFor();
      await page.unrouteAll();
      await store(client, 'orders', bodies(5));
      await eventually(async () => expect(await row.textContent()).toContain('orders10'));
    },
  );

  test('is asked again for a tail that something between has answered, though the status is good', async () => {
    const { httpAddress, client } = await runService();
    const page = await openConsole(httpAddress);
    await page.route(
      '**/v1/events?**',
      (route) =>
        route.fulfill({ status: 200, contentType: 'text/html', body: '<h1>\nSign in</h1>\n' }),
      { times: 2 },
    );
    await page.goto(`http://${httpAddress}/console/#/topics/orders`);
    await page.locator('.state-live').waitFor();
    await store(client, 'orders', bodies(5));
    await eventually(async () => expect(await shownBodies(page)).toHaveLength(5));
  });

  test('that says nothing any more, although its connection is open, is left after a while', async () => {
    const { httpAddress, start } = await restartable();
    const service = await start();
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    await store(service.connect(), 'orders', bodies(5));
    await eventually(async () => expect(await shownBodies(page)).toHaveLength(5));
    service.process.kill('SIGSTOP');
    onTestFinished(() => void service.process.kill('SIGCONT'));
    await page.getByText(/The server has not answered since/).waitFor();
    await page.getByText('Connecting …').waitFor();
    service.process.kill('SIGCONT');
    await store(service.connect(), 'orders', bodies(5, 6));
    await eventually(async () => expect(await shownBodies(page)).toEqual(bodies(10).toReversed()));
  });

  test('after which events are gone is not gone on with in silence', async () => {
    const { httpAddress, start } = await restartable();
    const service = await start();
    const client = service.connect();
    await store(client, 'orders', bodies(5));
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    await eventually(async () => expect(await shownBodies(page)).toHaveLength(5));
    await page.getByRole('button', { name: 'Pause' }).click();
    await store(client, 'orders', bodies(5, 6));
    const removed = await fetch(`http://${httpAddress}/v1/topics/orders`, { method: 'DELETE' });
    expect(removed.status).toBe(200);
    await store(client, 'orders', bodies(5, 11));
    await page.getByRole('button', { name: 'Continue' }).click();
    await expect(page.getByRole('alert').textContent()).resolves.toContain('CURSOR_EXPIRED');
    await page.getByRole('button', { name: 'Go on with the oldest event that is held' }).click();
    await eventually(async () =>
      expect(await shownBodies(page)).toEqual(bodies(5, 11).toReversed()),
    );
  });
});
