import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Page } from 'playwright-core';
import { describe, expect, onTestFinished, test } from 'vitest';
import { CHROMIUM } from '../support/browser.js';
import { ask } from '../support/http.js';
import { runService } from '../support/service.js';
import { eventually } from '../support/wait.js';
import { bodies, openConsole, store } from './console.js';

/** Each fact of the overview by its name: the value, and the smaller text below it. */
type Facts = Record<string, [string, string]>;

async function factsOf(page: Page): Promise<Facts> {
  const all = await page.locator('.fact').all();
  const read = all.map((fact) => fact.locator('dt, dd').allTextContents());
  return Object.fromEntries(
    (await Promise.all(read)).map(([name, ...rest]) => [name, rest]),
  ) as Facts;
}

/** Starts a load balancer that gives each request to the next of these servers. Returns its address. */
async function balance(addresses: readonly string[]): Promise<string> {
  let next = 0;
  const server = createServer((asked, answer) => {
    const { method, headers, url } = asked;
    const address = addresses[next++ % addresses.length];
    const passed = request(`http://${address}${url}`, { method, headers }, (answered) => {
      answer.writeHead(answered.statusCode!, answered.headers);
      answered.pipe(answer);
    });
    passed.on('error', () => answer.destroy());
    asked.pipe(passed);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

describe.runIf(CHROMIUM)('the overview', () => {
  test('shows the numbers of the server, and goes on', async () => {
    const { client, httpAddress } = await runService();
    await store(client, 'orders', bodies(100));
    const watch = client.Watch({ topic: 'orders' });
    watch.on('error', () => {}).on('data', () => {});
    const page = await openConsole(httpAddress);
    const facts = (): Promise<Facts> => factsOf(page);
    await eventually(async () => {
      const now = await facts();
      expect(now['Open watches']).toEqual(['1', '0 behind']);
      expect(now['Uploads / chats']).toEqual(['0 / 0', '0 rooms']);
      expect(now['Log'][0]).toMatch(/^[\d.]+ (B|KiB|MiB)$/);
      expect(now['Oldest event'][0]).toMatch(/^\d+ (s|min) ago$/);
    });
    await expect(page.locator('.about').textContent()).resolves.toMatch(
      /^ready, Feed .*Engine lmdb: an acknowledgement means flushed to disk/,
    );
    await eventually(async () => expect(await page.locator('.plot canvas').count()).toBe(6));

    // Only the last step of 5 s is shown.
    await eventually(async () => {
      await store(client, 'orders', bodies(10));
      const now = await facts();
      expect(now['Events in'][0]).toMatch(/^[1-9][\d.,]*\/s$/);
      expect(now['Deliveries'][0]).toMatch(/^[1-9][\d.,]*\/s$/);
      expect(now['Acknowledged (p50 / p99)'][0]).toMatch(/^[\d.]+ (µs|ms|s) \/ [\d.]+ (µs|ms|s)$/);
    });
    const about = page.locator('.about');
    await about.getByText("2 connections with open calls, this page's among them.").waitFor();
    watch.cancel();
    await eventually(async () => expect((await facts())['Open watches'][0]).toBe('0'));
    await about.getByText("1 connection with open calls: this page's.").waitFor();
  });

  test('shows the replica that was chosen, where each request may reach another one', async () => {
    const watched = await runService({ FEED_ENGINE: 'memory' });
    const idle = await runService({ FEED_ENGINE: 'memory' });
    watched.client.Watch({ topic: 'orders' }).on('error', () => {});
    const page = await openConsole(await balance([watched.httpAddress, idle.httpAddress]));
    const choice = page.locator('.title-row select');
    await eventually(async () => expect(await choice.locator('option').count()).toBe(2));
    for (const [{ httpAddress }, watches] of [
      [watched, '1'],
      [idle, '0'],
      [watched, '1'],
    ] as const) {
      const { replica } = (await ask(httpAddress, '/v1/stats')).json as { replica: string };
      await choice.selectOption(replica);
      await eventually(async () => expect((await factsOf(page))['Open watches'][0]).toBe(watches));
    }
    // The numbers are read every 2.5 s, from one and the other.
    const end = performance.now() + 6_000;
    while (performance.now() < end) expect((await factsOf(page))['Open watches'][0]).toBe('1');
  });

  test('shows the values at the pointer, of one moment in all plots', async () => {
    const { client, httpAddress } = await runService();
    const page = await openConsole(httpAddress);
    // A step of the server's numbers takes 5 s.
    await eventually(async () => {
      await store(client, 'orders', bodies(10));
      await page
        .locator('.u-over')
        .first()
        .hover({ position: { x: 300, y: 40 } });
      expect(await page.locator('.plot time').count()).toBe(6);
    });
    const times = new Set(await page.locator('.plot time').allTextContents());
    expect(times.size).toBe(1);
  });
});
