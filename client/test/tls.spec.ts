import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { expect, test } from 'vitest';
import { Authority, type Pair } from '../../test/support/certificates.js';
import { temporaryDirectory } from '../../test/support/service.js';
import { until, within } from '../../test/support/wait.js';
import { startFeed } from './cli/run-command.js';
import { bodies, client, numbers, Subject, take } from './service.js';

/** A service that demands certificates, and a client's files, which a test can change. */
async function start() {
  const directory = temporaryDirectory();
  const authority = new Authority(directory);
  const { cert, key } = authority.server();
  const settings = {
    FEED_TLS_CERT: cert,
    FEED_TLS_KEY: key,
    FEED_TLS_CLIENT_CA: authority.cert,
  };
  const files = {
    caFile: join(directory, 'ca.crt'),
    certFile: join(directory, 'tls.crt'),
    keyFile: join(directory, 'tls.key'),
  };
  copyFileSync(authority.cert, files.caFile);
  const put = ({ cert: newCert, key: newKey }: Pair): void => {
    copyFileSync(newCert, files.certFile);
    copyFileSync(newKey, files.keyFile);
  };
  put(authority.client());
  const subject = await Subject.start(settings);
  return { subject, authority, other: new Authority(directory, 'other'), files, put };
}

test('uploads and watches with a certificate of its own, by files and by PEM', async () => {
  const { subject, files } = await start();
  const byFiles = client(subject.address, { tls: files });
  expect(await byFiles.upload('t', ['a'])).toMatchObject({ stored: 1 });
  const pem = {
    ca: readFileSync(files.caFile),
    cert: readFileSync(files.certFile),
    key: readFileSync(files.keyFile),
  };
  const watch = client(subject.address, { tls: pem }).watch('t', { from: 'earliest' });
  expect(bodies(await take(watch, 1))).toEqual(['a']);
});

test('takes files that were renewed when it connects again', async () => {
  const { subject, other, files, put } = await start();
  const feed = client(subject.address, { tls: files });
  await feed.upload('t', ['a']);
  const watch = feed.watch('t', { from: 'earliest' });
  const events = take(watch, 2);
  await until(() => watch.cursor !== undefined, 'the first event');
  put(other.client());
  await subject.service.kill('SIGKILL');
  await subject.restart({ FEED_TLS_CLIENT_CA: other.cert });
  await feed.upload('t', ['b']);
  expect(bodies(await within(events, 'both events'))).toEqual(['a', 'b']);
});

test('goes on with the next certificate when the one of its connection ends', async () => {
  const { subject, authority, files, put } = await start();
  put(authority.client({ seconds: 12 }));
  const feed = client(subject.address, { tls: files });
  const reasons: unknown[] = [];
  const watch = feed.watch('t', {
    from: 'earliest',
    onState: (state) => {
      if (state.name === 'reconnecting') reasons.push(state.reason.reason);
    },
  });
  const count = 200; // for longer than the certificate lasts
  async function* slowly() {
    for (const body of numbers(0, count)) {
      yield body;
      await sleep(100);
    }
  }
  const events = take(watch, count);
  const uploaded = feed.upload('t', slowly());
  await until(() => watch.cursor !== undefined, 'the first event');
  put(authority.client());
  expect(await within(uploaded, 'the upload', 120_000)).toMatchObject({ stored: count });
  expect(bodies(await events)).toEqual(numbers(0, count));
  expect(reasons).toEqual(['CERTIFICATE_EXPIRED']);
});

test.each([
  [
    'a key without its certificate',
    (files: Files, next: Pair) => copyFileSync(next.key, files.keyFile),
  ],
  ['an authority that is cut short', (files: Files) => cut(files.caFile)],
  ['a certificate that is cut short', (files: Files) => cut(files.certFile)],
  ['an empty file', (files: Files) => writeFileSync(files.caFile, '')],
])('goes on with the last good files, with %s', async (_, damage) => {
  const { subject, authority, files } = await start();
  const feed = client(subject.address, { tls: files });
  await feed.upload('t', ['a']);
  damage(files, authority.client());
  await subject.service.kill('SIGKILL');
  await subject.restart();
  expect(await feed.upload('t', ['b'])).toMatchObject({ stored: 1 });
});

interface Files {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

function cut(path: string): void {
  writeFileSync(path, readFileSync(path).subarray(0, 300));
}

test('a key in place of the path of its file is in no error', async () => {
  const { subject, files } = await start();
  const key = readFileSync(files.keyFile, 'utf8');
  const feed = client(subject.address, { tls: { ...files, keyFile: key } });
  const failure: unknown = await feed.upload('t', ['a']).catch((error: unknown) => error);
  expect(String(failure)).toContain("a file of the option tls can't be read");
  const [, line] = key.split('\n');
  expect(inspect(failure, { showHidden: true })).not.toContain(line);
});

test('fails with the name of a file that never could be used', async () => {
  const { subject, files } = await start();
  cut(files.certFile);
  const broken = client(subject.address, { tls: files });
  await expect(broken.upload('t', ['a'])).rejects.toThrow(`${files.certFile} is cut short`);
  const missing = client(subject.address, { tls: { ...files, caFile: '/no/such/file' } });
  await expect(missing.upload('t', ['a'])).rejects.toThrow('/no/such/file');
});

test('the feed command takes files that were renewed when it connects again', async () => {
  const { subject, other, files, put } = await start();
  const flags = ['--ca', files.caFile, '--cert', files.certFile, '--key', files.keyFile];
  const address = ['--address', subject.address];
  const watch = startFeed(['watch', 't', '--from', 'earliest', ...address, ...flags]);
  await until(
    () => watch.stderr.includes('t: live\n'),
    () => `a watch: ${watch.stderr}`,
  );
  put(other.client());
  await subject.service.kill('SIGKILL');
  await subject.restart({ FEED_TLS_CLIENT_CA: other.cert });
  await client(subject.address, { tls: files }).upload('t', ['a']);
  await until(
    () => watch.stdout.includes('a'),
    () => `an event: ${watch.stderr}`,
  );
});
