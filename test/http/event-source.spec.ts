import { describe, expect, test } from 'vitest';
import { CHROMIUM, openPage } from '../support/browser.js';
import { bodies, restartable, store } from '../console/console.js';
import { eventually } from '../support/wait.js';

describe.runIf(CHROMIUM)("a browser's own EventSource", () => {
  test(
    'gets each event once, in order, while the server is killed ten times',
    { timeout: 400_000 },
    async () => {
      const { httpAddress, start } = await restartable();
      let service = await start();
      // Any page of the server will do.
      const page = await openPage(`http://${httpAddress}/healthz`);
      await page.evaluate(`
        globalThis.got = [];
        globalThis.source = new EventSource('/v1/events?topic=orders');
        source.onmessage = ({ data }) => got.push(JSON.parse(data).body);
        new Promise((resolve) => (source.onopen = resolve));
      `);
      const got = (): Promise<string[]> => page.evaluate<string[]>('got');
      let stored = 0;
      const storeMore = async (): Promise<void> => {
        await store(service.connect(), 'orders', bodies(10, stored + 1));
        stored += 10;
      };
      await storeMore();
      await eventually(async () => expect(await got()).toHaveLength(stored));
      for (let kills = 0; kills < 10; kills++) {
        await storeMore();
        await service.kill('SIGKILL');
        service = await start();
        await storeMore();
      }
      await eventually(async () => expect(await got()).toEqual(bodies(stored)), 60_000);
    },
  );
});
