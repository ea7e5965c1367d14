import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test, type TestContext } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { errorInfo, type FeedClient, upload, type Upload } from '../support/client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { useShim } from '../support/shim.js';
import { until } from '../support/wait.js';

const event = (id: string): Partial<Event> => ({ id, topic: 'orders' });

/** Writes events and does not end. */
function uploadOpen(client: FeedClient, ids: readonly string[]): Promise<Upload> {
  return new Promise((resolve) => {
    const call = client.UploadEvents((error, result) => resolve(error ? { error } : { result }));
    for (const id of ids) call.write(event(id));
  });
}

/** How many of an upload's first events it says are stored; what ends it otherwise is its status. */
function received({ result, error }: Upload): number {
  if (result) return result.received;
  const info = errorInfo(error!.metadata);
  expect(info?.reason).toBe('DRAINING');
  return Number(info!.metadata.received);
}

describe('a signal while a commit waits for the disk', () => {
  const slowSync = useShim(new URL('../repository/slow-sync.c', import.meta.url));

  /** A service whose next commit will wait for the disk. */
  async function start(context: TestContext, drainTimeout: string) {
    const settings = {
      FEED_DATA_DIR: temporaryDirectory(),
      FEED_DRAIN_TIMEOUT: drainTimeout,
      LD_PRELOAD: slowSync(context),
      SHIM_HOLD: join(temporaryDirectory(), 'hold'),
    };
    const service = await ServiceProcess.start(settings);
    const client = service.connect();
    expect((await upload(client, [event('before')])).result?.received).toBe(1);
    writeFileSync(settings.SHIM_HOLD, '');
    return {
      service,
      client,
      waits: () => until(() => existsSync(`${settings.SHIM_HOLD}.reached`), 'a flush that waits'),
      release: () => rmSync(settings.SHIM_HOLD),
      restart: () => ServiceProcess.start(settings),
    };
  }

  async function idsIn(service: ServiceProcess): Promise<string[]> {
    const client = service.connect();
    const marker = (await upload(client, [event('end')])).result!.lastCursor;
    const ids: string[] = [];
    for await (const { id, cursor } of client.Watch({
      topic: 'orders',
      position: 1,
    }) as AsyncIterable<Event>) {
      if (cursor === marker) break;
      ids.push(id);
    }
    return ids;
  }

  test.for([
    { when: 'within the drain timeout', drainTimeout: '2s', held: 300 },
    { when: 'only after it', drainTimeout: '300ms', held: 1_000 },
  ])(
    'ends uploads with what is stored, and the process with 0, where the disk answers $when',
    async ({ drainTimeout, held }, context) => {
      const { service, client, waits, release, restart } = await start(context, drainTimeout);
      const uploads = [{ ids: ['a0', 'a1'], outcome: upload(client, ['a0', 'a1'].map(event)) }];
      await waits();
      // Behind the commit that waits.
      uploads.push(
        { ids: ['b0', 'b1', 'b2'], outcome: uploadOpen(client, ['b0', 'b1', 'b2']) },
        { ids: ['c0'], outcome: upload(client, [event('c0')]) },
      );
      await sleep(200);
      service.process.kill('SIGTERM');
      await sleep(held);
      release();
      expect(await service.exited).toEqual({ code: 0, signal: null });

      const stored = await idsIn(await restart());
      expect(stored.slice(0, 3)).toEqual(['before', 'a0', 'a1']);
      for (const { ids, outcome } of uploads) {
        const promised = ids.slice(0, received(await outcome));
        expect(stored.filter((id) => ids.includes(id))).toEqual(promised);
      }
    },
  );

  /** Signals twice while a commit waits. */
  async function signalTwice(context: TestContext) {
    const started = await start(context, '60s');
    const { service, client, waits } = started;
    const hanging = upload(client, [event('a')]);
    await waits();
    service.process.kill('SIGTERM');
    await sleep(500);
    expect(service.process.exitCode).toBeNull();
    service.process.kill('SIGTERM');
    return { ...started, hanging };
  }

  test('a second signal ends at once though the disk does not answer; the log can be opened again', async (context) => {
    const { service, hanging, release, restart } = await signalTwice(context);
    const ended = await Promise.race([service.exited, sleep(2_000)]);
    expect(ended).toEqual({ code: null, signal: 'SIGKILL' });
    release();
    // Nothing was promised: whether it is stored, the disk knows.
    expect((await hanging).result).toBeUndefined();
    expect([['before'], ['before', 'a']]).toContainEqual(await idsIn(await restart()));
  });

  test('ends in time though the disk never answers; the log can be opened again', async (context) => {
    const { service, client, waits, release, restart } = await start(context, '200ms');
    const hanging = upload(client, [event('a')]);
    await waits();
    const ended = await Promise.race([service.kill('SIGTERM'), sleep(11_000)]);
    expect(ended).toEqual({ code: null, signal: 'SIGKILL' });
    expect(service.output.join('')).toContain('the store does not answer');
    release();
    expect((await hanging).result).toBeUndefined();
    expect([['before'], ['before', 'a']]).toContainEqual(await idsIn(await restart()));
  });
});
