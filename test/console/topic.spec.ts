import { describe, expect, test } from 'vitest';
import { CHROMIUM } from '../support/browser.js';
import { take, upload } from '../support/client.js';
import { runService } from '../support/service.js';
import { eventually } from '../support/wait.js';
import { bodies, openConsole, shownBodies, store, TALL } from './console.js';

const newestFirst = (count: number): string[] => bodies(count).toReversed();

describe.runIf(CHROMIUM)('the live tail of a topic', () => {
  test('has the newest events, then each as it is stored; a pause leaves none out', async () => {
    const { client, httpAddress } = await runService();
    await store(client, 'orders', bodies(10));
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    const shows = (count: number) =>
      eventually(async () => expect(await shownBodies(page)).toEqual(newestFirst(count)));
    await shows(10);
    await store(client, 'orders', bodies(10, 11));
    await shows(20);
    await page.getByRole('button', { name: 'Pause' }).click();
    await store(client, 'orders', bodies(10, 21));
    await page.getByText('Paused', { exact: true }).waitFor();
    expect(await shownBodies(page)).toEqual(newestFirst(20));
    expect(await page.getByText('The server has not answered').isVisible()).toBe(false);
    await page.getByRole('button', { name: 'Continue' }).click();
    await shows(30);
  });

  test('begins without an event where the topic has none', async () => {
    const { client, httpAddress } = await runService();
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    await page.locator('.state-live').waitFor();
    await store(client, 'orders', bodies(1));
    await eventually(async () => expect(await shownBodies(page)).toEqual(bodies(1)));
  });

  test('of a pattern has the events of all its topics, with their names', async () => {
    const { client, httpAddress } = await runService();
    await store(client, 'orders.paid', ['first']);
    await store(client, 'shipping', ['another']);
    await store(client, 'orders.created', ['second']);
    const page = await openConsole(httpAddress, '#/topics', TALL);
    await page.getByRole('searchbox').fill('orders.>');
    await page.keyboard.press('Enter');
    await eventually(async () => expect(await shownBodies(page)).toEqual(['second', 'first']));
    await store(client, 'orders.paid', ['third']);
    await eventually(async () =>
      expect(await page.locator('.row-topic').allTextContents()).toEqual([
        'orders.paid',
        'orders.created',
        'orders.paid',
      ]),
    );
    expect(await page.getByRole('button', { name: 'Upload …' }).count()).toBe(0);
  });

  test('pauses while the reader has scrolled away from the newest event', async () => {
    const { client, httpAddress } = await runService();
    await store(client, 'orders', bodies(100));
    const page = await openConsole(httpAddress, '#/topics/orders');
    const list = page.getByRole('listbox');
    await list.getByText('body-100').waitFor();
    await list.focus();
    await page.keyboard.press('End');
    await list.getByText('body-1', { exact: true }).waitFor();
    await page.getByText('Paused', { exact: true }).waitFor();
    await store(client, 'orders', bodies(1, 101));
    await page.keyboard.press('Home');
    await list.getByText('body-101').waitFor();
  });

  test('shows only events with a text', async () => {
    const { client, httpAddress } = await runService();
    await store(client, 'orders', ['a red one', 'a blue one']);
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    await eventually(async () => expect(await shownBodies(page)).toHaveLength(2));
    await page.keyboard.press('/');
    await page.keyboard.type('RED');
    await eventually(async () => expect(await shownBodies(page)).toEqual(['a red one']));
    await store(client, 'orders', ['a green one', 'another red one']);
    await page.getByText('2 of 4 match').waitFor();
    await page.keyboard.press('Escape');
    await eventually(async () =>
      expect(await shownBodies(page)).toEqual([
        'another red one',
        'a green one',
        'a blue one',
        'a red one',
      ]),
    );
  });

  test('shows all of an event, with JSON indented, and copies ways to go on from it', async () => {
    const { client, httpAddress } = await runService();
    const body = '{"total":12345678901234567890,"items":["a"]}';
    const event = { topic: 'orders', id: 'o-1', body, attributes: { source: 'shop' } };
    const { result } = await upload(client, [event]);
    const cursor = result!.lastCursor;
    const page = await openConsole(httpAddress, '#/topics/orders');
    await page.getByRole('listbox').getByText('o-1').click();
    const detail = page.getByRole('complementary', { name: 'Event' });
    await expect(detail.locator('pre').textContent()).resolves.toBe(
      '{\n  "total": 12345678901234567890,\n  "items": [\n    "a"\n  ]\n}',
    );
    await expect(detail.locator('dl').textContent()).resolves.toContain('sourceshop');
    const copied = async (name: string): Promise<string> => {
      // It says so for a second only.
      await eventually(async () => {
        await detail.getByRole('button', { name }).click();
        await detail.getByRole('button', { name: 'Copied' }).waitFor({ timeout: 2_000 });
      });
      const text = await page.evaluate<string>('navigator.clipboard.readText()');
      await detail.getByRole('button', { name }).waitFor();
      return text;
    };
    expect(await copied('Copy cursor')).toBe(cursor);
    expect(await copied('Copy body')).toBe(body);
    expect(await copied('Copy feed watch')).toBe(`feed watch orders --from ${cursor}`);
    expect(await copied('Copy curl')).toBe(
      `curl -N 'http://${httpAddress}/v1/events?topic=orders&after=${cursor}'`,
    );
    await page.keyboard.press('Escape');
    await detail.waitFor({ state: 'detached' });
  });
});

describe.runIf(CHROMIUM)('an event of any size', () => {
  test('is shown up to a bound, and JSON of many levels as it is', async () => {
    const { client, httpAddress } = await runService();
    const id = 'i'.repeat(200_000);
    const nested = '['.repeat(5_000) + ']'.repeat(5_000);
    const long = JSON.stringify(Array.from({ length: 10_000 }, (_one, price) => ({ price })));
    await upload(client, [
      { topic: 'orders', id, body: nested },
      { topic: 'orders', id: 'o-2', body: long },
    ]);
    const page = await openConsole(httpAddress, '#/topics/orders');
    const row = page.getByRole('listbox').locator('.row', { hasText: 'iii' });
    expect((await row.locator('.row-id').textContent())!.length).toBe(300);
    await row.click();
    const detail = page.getByRole('complementary', { name: 'Event' });
    await expect(detail.locator('pre').textContent()).resolves.toBe(nested);
    await expect(detail.locator('dd').first().textContent()).resolves.toMatch(
      /^i{1000} … \(200,000 characters\)$/,
    );
    await page.getByRole('listbox').getByText('o-2').click();
    await detail.getByText('Only the first 100,000 characters are shown.').waitFor();
    await expect(detail.locator('pre').textContent()).resolves.toBe(
      JSON.stringify(JSON.parse(long), null, 2).slice(0, 100_000),
    );
    const copy = detail.getByRole('button', { name: 'Copy body' });
    expect(await copy.getAttribute('title')).toBe(long.slice(0, 300));
    await copy.click();
    await detail.getByRole('button', { name: 'Copied' }).waitFor();
    expect(await page.evaluate<string>('navigator.clipboard.readText()')).toBe(long);
  });

  test('is read once, however many events come after it', async () => {
    const { client, httpAddress } = await runService();
    await store(client, 'orders', ['{"name":"the large one"}']);
    const page = await openConsole(httpAddress, '#/topics/orders');
    await page.getByRole('listbox').getByText('the large one').click();
    await page.getByRole('complementary', { name: 'Event' }).waitFor();
    await page.evaluate(`
      globalThis.timesRead = 0;
      const parse = JSON.parse;
      JSON.parse = (text) => {
        if (text.includes('the large one')) timesRead++;
        return parse(text);
      };
    `);
    for (let number = 1; number <= 5; number++) {
      await store(client, 'orders', bodies(1, number));
      await page.getByRole('listbox').getByText(`body-${number}`).waitFor();
    }
    expect(await page.evaluate<number>('timesRead')).toBe(0);
  });

  test('is on a page of the history that has fewer events, of which none is left out', async () => {
    const { client, httpAddress } = await runService();
    const large = bodies(12).map((body) => body.padEnd(1_000_000));
    for (const body of large) await store(client, 'orders', [body]);
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    await page.getByRole('button', { name: 'History' }).click();
    await page.getByText('8 events', { exact: true }).waitFor();
    const shown = async () => (await shownBodies(page)).map((body) => body.trimEnd());
    expect(await shown()).toEqual(bodies(8));
    await page.getByRole('button', { name: 'Next 100' }).click();
    await page
      .getByText('12 events, the first 4 are no longer shown, the end of what is stored')
      .waitFor();
    expect(await shown()).toEqual(bodies(8, 5));
  });
});

describe.runIf(CHROMIUM)('the history of a topic', () => {
  test('is read from the oldest event, a page at a time, each event once', async () => {
    const { client, httpAddress } = await runService();
    await store(client, 'others', bodies(50));
    await store(client, 'orders', bodies(230));
    await store(client, 'others', bodies(50));
    const page = await openConsole(httpAddress, '#/topics/orders', {
      viewport: { width: 1280, height: 6500 },
    });
    await page.getByRole('button', { name: 'History' }).click();
    for (const count of [100, 200]) {
      await eventually(async () => expect(await shownBodies(page)).toEqual(bodies(count)));
      await page.getByRole('button', { name: 'Next 100' }).click();
    }
    await eventually(async () => expect(await shownBodies(page)).toEqual(bodies(230)));
    await page.getByText('230 events, the end of what is stored').waitFor();
    await store(client, 'orders', bodies(1, 231));
    await page.getByRole('button', { name: 'Look again' }).click();
    await eventually(async () => expect(await shownBodies(page)).toEqual(bodies(231)));
  });

  test('is read from a time, or after a cursor', async () => {
    const { client, httpAddress } = await runService();
    await store(client, 'orders', bodies(5));
    const [, second] = await take(client, { topic: 'orders', last: 5 }, 2);
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    await page.getByRole('button', { name: 'History' }).click();
    await page.getByLabel('Begin').selectOption('cursor');
    await page.getByLabel('Cursor').fill(second.cursor);
    await page.keyboard.press('Enter');
    await eventually(async () => expect(await shownBodies(page)).toEqual(bodies(3, 3)));
    await page.getByLabel('Begin').selectOption('time');
    await page.getByRole('button', { name: 'Show' }).click();
    await eventually(async () => expect(await shownBodies(page)).toEqual(bodies(5)));
    await page.getByLabel('Stored since').fill('2999-01-01T00:00:00');
    await page.getByRole('button', { name: 'Show' }).click();
    await page.getByText('0 events, the end of what is stored').waitFor();
    await page.getByLabel('Begin').selectOption('cursor');
    await page.getByLabel('Cursor').fill('nonsense');
    await page.keyboard.press('Enter');
    await expect(page.getByRole('alert').textContent()).resolves.toContain('CURSOR_INVALID');
  });

  test('goes on from an event of the live tail', async () => {
    const { client, httpAddress } = await runService();
    await store(client, 'orders', bodies(5));
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    await page.getByRole('listbox').getByText('body-3').click();
    await page.getByRole('button', { name: 'What follows' }).click();
    await eventually(async () => expect(await shownBodies(page)).toEqual(bodies(2, 4)));
  });
});

describe.runIf(CHROMIUM)('an upload', () => {
  test('stores lines, or events in JSON', async () => {
    const { client, httpAddress } = await runService();
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    await page.getByRole('button', { name: 'Upload …' }).click();
    const dialog = page.getByRole('dialog');
    await page.keyboard.type('body-1\nbody-2\n');
    await page.keyboard.press('Control+Enter');
    await dialog.getByText('2 stored (fsync).').waitFor();
    await dialog.getByLabel('Each line is').selectOption('json');
    await dialog.getByRole('textbox').fill('{"id": "three", "body": "body-3"}');
    await dialog.getByRole('button', { name: 'Upload', exact: true }).click();
    await dialog.getByText('1 stored (fsync).').waitFor();
    await dialog.getByRole('textbox').fill('{"id": "three", "body": "body-3"}');
    await dialog.getByRole('button', { name: 'Upload', exact: true }).click();
    await dialog.getByText('1 stored, 1 of them already before (fsync).').waitFor();
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    await eventually(async () => expect(await shownBodies(page)).toEqual(newestFirst(3)));
    const stored = await take(client, { topic: 'orders', last: 3 }, 3);
    expect(stored.map(({ body }) => body)).toEqual(bodies(3));
    expect(stored[2].id).toBe('three');
  });

  test('under way is not made again by Ctrl+Enter, and keeps what is typed out', async () => {
    const { client, httpAddress } = await runService();
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    const answered = Promise.withResolvers<void>();
    let posts = 0;
    await page.route(/\/v1\/events\?/, async (route) => {
      if (route.request().method() === 'POST') {
        posts++;
        await answered.promise;
      }
      await route.continue();
    });
    await page.getByRole('button', { name: 'Upload …' }).click();
    const dialog = page.getByRole('dialog');
    await page.keyboard.type('body-1');
    await page.keyboard.press('Control+Enter');
    await dialog.getByRole('button', { name: 'Uploading …' }).waitFor();
    await page.keyboard.press('Control+Enter');
    await page.keyboard.type(' and more');
    await expect(dialog.getByRole('textbox').inputValue()).resolves.toBe('body-1');
    answered.resolve();
    await dialog.getByText('1 stored (fsync).').waitFor();
    expect(posts).toBe(1);
    await page.keyboard.type('body-2');
    await page.keyboard.press('Control+Enter');
    await eventually(async () => expect(await shownBodies(page)).toEqual(newestFirst(2)));
    const stored = await take(client, { topic: 'orders', last: 3 }, 2);
    expect(stored.map(({ body }) => body)).toEqual(bodies(2));
  });

  test('that is refused says why, and what of it is stored', async () => {
    const { httpAddress } = await runService();
    const page = await openConsole(httpAddress, '#/topics/orders', TALL);
    await page.getByRole('button', { name: 'Upload …' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Each line is').selectOption('json');
    await dialog.getByRole('textbox').fill('{"body": "body-1"}\n{"boody": "body-2"}');
    await dialog.getByRole('button', { name: 'Upload', exact: true }).click();
    await expect(dialog.getByRole('alert').textContent()).resolves.toContain(
      'The first event is stored.',
    );
    await eventually(async () => expect(await shownBodies(page)).toEqual(['body-1']));
  });

  test.each([
    ['STORE_UNAVAILABLE', 503, { received: '1' }, true],
    ['INSERT_FAILED', 500, { received: '0' }, true],
    ['ENDED_BY_OPERATOR', 409, {}, true],
    ['ENDED_BY_OPERATOR', 409, { received: '1' }, false],
    ['STORAGE_FULL', 507, { received: '1' }, false],
    [undefined, 504, {}, true], // A proxy answers.
    [undefined, 415, {}, false],
  ])(
    'that ends with %s (%i, %j) says whether more may be stored: %s',
    async (reason, status, metadata, mayBeStored) => {
      const { httpAddress } = await runService();
      const page = await openConsole(httpAddress, '#/topics/orders', TALL);
      await page.route(/\/v1\/events\?/, (route) =>
        route.request().method() === 'POST'
          ? route.fulfill({
              status,
              contentType: 'application/problem+json',
              body: JSON.stringify({ status, detail: 'no', reason, ...metadata }),
            })
          : route.continue(),
      );
      await page.getByRole('button', { name: 'Upload …' }).click();
      await page.keyboard.type('body-1\nbody-2\n');
      await page.keyboard.press('Control+Enter');
      const text = await page.getByRole('dialog').getByRole('alert').textContent();
      expect(text?.includes('may be stored or not')).toBe(mayBeStored);
      expect(text?.includes('The first event is stored.')).toBe(
        'received' in metadata && metadata.received === '1',
      );
    },
  );
});
