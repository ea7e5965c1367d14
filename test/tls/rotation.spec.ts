import { appendFileSync, copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { Authority, type Pair } from '../support/certificates.js';
import { connect, upload } from '../support/client.js';
import { runService, type Running, temporaryDirectory } from '../support/service.js';
import { eventually, until } from '../support/wait.js';
import { channelCredentials, CALLS, httpStatus } from './calls.js';
import { serialOf, servedSerial, watchAll } from './served.js';

interface Files {
  readonly cert: string;
  readonly key: string;
}

/** A service whose certificate is in files of its own, which a test can change. */
async function serveFiles(): Promise<{
  service: Running;
  files: Files;
  authority: Authority;
  first: Pair;
}> {
  const directory = temporaryDirectory();
  const authority = new Authority(directory);
  const first = authority.server();
  const files = { cert: join(directory, 'tls.crt'), key: join(directory, 'tls.key') };
  put(files, first);
  const service = await runService({
    FEED_ENGINE: 'memory',
    FEED_TLS_CERT: files.cert,
    FEED_TLS_KEY: files.key,
  });
  return { service, files, authority, first };
}

function put(files: Files, pair: Pair): void {
  copyFileSync(pair.cert, files.cert);
  copyFileSync(pair.key, files.key);
}

const errorsIn = ({ log }: Running): string[] =>
  log.filter(({ level }) => level === 50).map(({ msg }) => String(msg));

test('a new certificate is served on both ports, without a restart', async () => {
  const { service, files, authority, first } = await serveFiles();
  expect(await servedSerial(service.grpcAddress)).toBe(serialOf(first));
  expect(await servedSerial(service.httpAddress)).toBe(serialOf(first));
  const second = authority.server();
  put(files, second);
  await eventually(async () => {
    expect(await servedSerial(service.grpcAddress)).toBe(serialOf(second));
    expect(await servedSerial(service.httpAddress)).toBe(serialOf(second));
  });
  expect(errorsIn(service)).toEqual([]);
});

const damage: readonly (readonly [string, (files: Files, next: Pair) => void, RegExp])[] = [
  [
    'a certificate that is cut short',
    ({ cert }, next) => writeFileSync(cert, readFileSync(next.cert).subarray(0, 300)),
    /FEED_TLS_CERT.*is cut short/,
  ],
  [
    'a chain that is cut short in a line of dashes',
    ({ cert }) => appendFileSync(cert, '-----BEGIN CERTI'),
    /FEED_TLS_CERT.*is cut short/,
  ],
  [
    'a key that is cut short',
    ({ key }, next) => writeFileSync(key, readFileSync(next.key).subarray(0, 100)),
    /FEED_TLS_KEY.*no private key/,
  ],
  ['an empty certificate', ({ cert }) => truncateSync(cert), /FEED_TLS_CERT.*no PEM certificate/],
  [
    'a certificate without its key',
    ({ cert }, next) => copyFileSync(next.cert, cert),
    /FEED_TLS_KEY.*is not the key of the certificate/,
  ],
  [
    'a key without its certificate',
    ({ key }, next) => copyFileSync(next.key, key),
    /FEED_TLS_KEY.*is not the key of the certificate/,
  ],
];

test.each(damage)(
  '%s is refused with one line in the log, the last good one stays, and the next good one is taken',
  async (_, damageFiles, problem) => {
    const { service, files, authority, first } = await serveFiles();
    damageFiles(files, authority.server());
    await until(() => errorsIn(service).length > 0, 'a line in the log');
    // Longer than the files take to be read twice more.
    await sleep(2_500);
    expect(errorsIn(service)).toEqual([expect.stringMatching(problem)]);
    expect(await servedSerial(service.grpcAddress)).toBe(serialOf(first));
    expect(await servedSerial(service.httpAddress)).toBe(serialOf(first));
    expect(await CALLS.UploadEvents(service.grpcAddress, { ca: authority.cert })).toBe('OK');
    const second = authority.server();
    put(files, second);
    await eventually(async () =>
      expect(await servedSerial(service.grpcAddress)).toBe(serialOf(second)),
    );
    expect(errorsIn(service)).toHaveLength(1);
  },
);

test('files that are back as they were are said to be, and a second loss is said again', async () => {
  const { service, files, first, authority } = await serveFiles();
  for (let losses = 1; losses <= 2; losses++) {
    copyFileSync(authority.server().key, files.key);
    await until(() => errorsIn(service).length === losses, 'a line in the log');
    put(files, first);
    await until(
      () => service.log.filter(({ msg }) => String(msg).includes('in use again')).length === losses,
      'a line in the log',
    );
  }
});

test('other authorities of clients hold for new connections, and open ones stay', async () => {
  const directory = temporaryDirectory();
  const old = new Authority(directory, 'old');
  const next = new Authority(directory, 'next');
  const { cert, key } = old.server();
  const clientCa = join(directory, 'clients.pem');
  copyFileSync(old.cert, clientCa);
  const service = await runService({
    FEED_ENGINE: 'memory',
    FEED_TLS_CERT: cert,
    FEED_TLS_KEY: key,
    FEED_TLS_CLIENT_CA: clientCa,
  });
  const byOld = { ca: old.cert, own: old.client() };
  const byNext = { ca: old.cert, own: next.client() };
  const client = connect(service.grpcAddress, {}, channelCredentials(byOld));
  onTestFinished(() => client.close());
  const received = watchAll(client);
  await upload(client, [{ topic: 'load', body: '0' }]);
  await until(() => received.events.length === 1, 'an event');
  expect(await CALLS.health(service.grpcAddress, byNext)).toBe('UNAVAILABLE');

  copyFileSync(next.cert, clientCa);
  await eventually(async () => expect(await CALLS.health(service.grpcAddress, byNext)).toBe('OK'));
  expect(await CALLS.health(service.grpcAddress, byOld)).toBe('UNAVAILABLE');
  expect(await httpStatus(service.httpAddress, '/other', byOld)).toBe(403);
  expect(await httpStatus(service.httpAddress, '/other', byNext)).toBe(404);
  expect((await upload(client, [{ topic: 'load', body: '1' }])).error).toBeUndefined();
  await until(() => received.events.length === 2, 'an event on the open connection');

  truncateSync(clientCa);
  await until(() => errorsIn(service).length > 0, 'a line in the log');
  expect(errorsIn(service)[0]).toMatch(/FEED_TLS_CLIENT_CA.*has no PEM certificate/);
  expect(await CALLS.health(service.grpcAddress, byNext)).toBe('OK');
});
