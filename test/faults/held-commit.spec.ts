import { status } from '@grpc/grpc-js';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test, type TestContext } from 'vitest';
import { errorInfo, type FeedClient, upload, type Upload } from '../support/client.js';
import type { ServiceProcess } from '../support/service.js';
import { useShim } from '../support/shim.js';
import { eventually, until, upToThrice } from '../support/wait.js';
import { event, idsIn, startHeld } from './held-disk.js';
import { ServiceLog } from './service-log.js';

/** Uploads events and does not half-close. Resolves with the result or the error. */
function uploadOpen(client: FeedClient, ids: readonly string[]): Promise<Upload> {
  return new Promise((resolve) => {
    const call = client.UploadEvents((error, result) => resolve(error ? { error } : { result }));
    for (const id of ids) call.write(event(id));
  });
}

/** True for an upload that got no answer, because its connection was closed: grpc-js says one or the other then. */
const isBroken = ({ error }: Upload): boolean =>
  error !== undefined &&
  [status.UNAVAILABLE, status.INTERNAL].includes(error.code) &&
  !errorInfo(error.metadata);

/** Returns how many events an upload's result, or its status DRAINING, says are stored. */
function received({ result, error }: Upload): number {
  if (result) return result.received;
  const info = errorInfo(error!.metadata);
  expect(info?.reason).toBe('DRAINING');
  return Number(info!.metadata.received);
}

describe('a signal while a commit waits for the disk', () => {
  const slowSync = useShim(new URL('../repository/slow-sync.c', import.meta.url));

  const start = async (context: TestContext, drainTimeout: string) => {
    const held = await startHeld(slowSync(context), {
      FEED_DRAIN_TIMEOUT: drainTimeout,
      FEED_LOG_LEVEL: 'debug',
    });
    return { ...held, log: new ServiceLog(held.service) };
  };

  /** Waits until the service has logged that it drains. */
  const drains = (service: ServiceProcess): Promise<void> =>
    until(() => service.output.join('').includes('draining'), 'a service that drains');

  test.for([
    { when: 'within the drain timeout', drainTimeout: '2s', held: 300 },
    { when: 'only after it', drainTimeout: '300ms', held: 500 },
    { when: 'after so long that a quiet upload would be idle', drainTimeout: '20s', held: 2_000 },
  ])(
    'ends uploads with the number of stored events, and the process with 0, if the disk answers $when',
    async ({ drainTimeout, held }, context) => {
      const drained = async () => {
        const { service, client, log, waits, release, restart } = await start(
          context,
          drainTimeout,
        );
        const uploads = [
          { ids: ['a0', 'a1'], outcome: upload(client, [event('a0'), event('a1')]) },
        ];
        await waits();
        // These come after the commit that waits.
        uploads.push(
          { ids: ['b0', 'b1', 'b2'], outcome: uploadOpen(client, ['b0', 'b1', 'b2']) },
          { ids: ['c0'], outcome: upload(client, [event('c0')]) },
        );
        await eventually(() => expect(log.open.uploads).toBe(3));
        service.process.kill('SIGTERM');
        await drains(service);
        await sleep(held);
        release();
        expect(await service.ended()).toEqual({ code: 0, signal: null });
        const outcomes = await Promise.all(uploads.map(({ outcome }) => outcome));
        return { restart, ended: uploads.map(({ ids }, i) => ({ ids, outcome: outcomes[i] })) };
      };
      // The service closes connections 4 s after the drain timeout, and this process may stand still for so long.
      const { restart, ended } = await upToThrice(
        drained,
        (found) => drainTimeout === '20s' || !found.ended.some(({ outcome }) => isBroken(outcome)),
      );

      const stored = await idsIn(await restart());
      expect(stored.slice(0, 3)).toEqual(['before', 'a0', 'a1']);
      for (const { ids, outcome } of ended) {
        const promised = ids.slice(0, received(outcome));
        expect(stored.filter((id) => ids.includes(id))).toEqual(promised);
      }
    },
  );

  /** Sends two signals while a commit waits. */
  async function signalTwice(context: TestContext) {
    const started = await start(context, '60s');
    const { service, client, waits } = started;
    const hanging = upload(client, [event('a')]);
    await waits();
    service.process.kill('SIGTERM');
    await drains(service);
    // Signals within 1 s count as one (signals.ts). The pause also shows that the service does not end by itself.
    await sleep(1_200);
    expect(service.process.exitCode).toBeNull();
    service.process.kill('SIGTERM');
    return { ...started, hanging };
  }

  test('a second signal ends the process at once though the disk does not answer; the log can be opened again', async (context) => {
    const { service, hanging, release, restart } = await signalTwice(context);
    // The drain would take a minute.
    expect(await service.ended(20_000)).toEqual({ code: null, signal: 'SIGKILL' });
    release();
    // The event was not acknowledged, so it may be stored or not.
    expect((await hanging).result).toBeUndefined();
    expect([['before'], ['before', 'a']]).toContainEqual(await idsIn(await restart()));
  });

  test('ends the process in time though the disk never answers; the log can be opened again', async (context) => {
    const { service, client, waits, release, restart } = await start(context, '200ms');
    const hanging = upload(client, [event('a')]);
    await waits();
    expect(await service.kill('SIGTERM')).toEqual({ code: null, signal: 'SIGKILL' });
    expect(service.output.join('')).toContain('the store does not answer');
    release();
    expect((await hanging).result).toBeUndefined();
    expect([['before'], ['before', 'a']]).toContainEqual(await idsIn(await restart()));
  });
});
