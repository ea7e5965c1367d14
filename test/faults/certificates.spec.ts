import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { Authority, type Pair, SecretVolume } from '../support/certificates.js';
import { connect, type FeedClient, upload } from '../support/client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually, until } from '../support/wait.js';
import { CALLS, channelCredentials } from '../tls/calls.js';
import { serialOf, servedSerial, watchAll } from '../tls/served.js';

/** How long (seconds) certificates change every two seconds under load. `npm run faults` sets a minute. */
const SECONDS = Number(process.env.FEED_TEST_ROTATION_SECONDS ?? 6);

test(
  'certificates that change every two seconds under load: no call is lost on open connections, and new ones see the new certificate',
  { timeout: SECONDS * 1_000 + 60_000 },
  async () => {
    const directory = temporaryDirectory();
    const authority = new Authority(directory);
    const contentsOf = ({ cert, key }: Pair) => ({
      'tls.crt': cert,
      'tls.key': key,
      'ca.crt': authority.cert,
    });
    const volume = new SecretVolume(join(directory, 'secret'), contentsOf(authority.server()));
    const service = await ServiceProcess.start({
      FEED_ENGINE: 'memory',
      FEED_TLS_CERT: volume.path('tls.crt'),
      FEED_TLS_KEY: volume.path('tls.key'),
      FEED_TLS_CLIENT_CA: volume.path('ca.crt'),
    });
    const own = authority.client();
    const certificates = { ca: authority.cert, own };
    const open = (): FeedClient => {
      const client = connect(service.grpcAddress, {}, channelCredentials(certificates));
      onTestFinished(() => client.close());
      return client;
    };

    const watcher = watchAll(open());
    const producer = open();
    const chat = open().Chat();
    let echoes = 0;
    const failures: Error[] = [];
    chat.on('data', () => echoes++);
    chat.on('error', (error) => failures.push(error));
    const over = new AbortController();
    let stored = 0;
    let said = 0;
    let fresh = 0;
    const load = [
      (async () => {
        while (!over.signal.aborted) {
          const { error } = await upload(producer, [{ topic: 'load', body: String(stored) }]);
          if (error) failures.push(error);
          else stored++;
          chat.write({ from: 'me', text: String(said++) });
          await sleep(1);
        }
      })(),
      // New connections all the time, also in the middle of a change.
      (async () => {
        while (!over.signal.aborted) {
          const outcome = await CALLS.health(service.grpcAddress, certificates);
          if (outcome === 'OK') fresh++;
          else failures.push(new Error(`a new connection: ${outcome}`));
        }
      })(),
    ];

    let rotations = 0;
    const end = performance.now() + SECONDS * 1_000;
    while (performance.now() < end) {
      const next = authority.server();
      const changedAt = performance.now();
      volume.put(contentsOf(next));
      await eventually(async () =>
        expect(await servedSerial(service.grpcAddress, own)).toBe(serialOf(next)),
      );
      rotations++;
      await sleep(Math.max(0, 2_000 - (performance.now() - changedAt)));
    }
    over.abort();
    await Promise.all(load);
    await until(() => watcher.events.length === stored && echoes === said, 'all events and echoes');

    expect(failures).toEqual([]);
    expect(watcher.error).toBeUndefined();
    expect(watcher.events.map(({ body }) => Number(body))).toEqual(
      Array.from({ length: stored }, (_, i) => i),
    );
    expect(rotations).toBeGreaterThanOrEqual(Math.floor(SECONDS / 4));
    expect(Math.min(stored, fresh)).toBeGreaterThan(0);
    expect(service.output.join('')).not.toContain('last good certificate');
  },
);
