import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { connect, type Feed } from '../../client/src/index.js';
import { freePort } from '../support/ports.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until, within } from '../support/wait.js';

/** How long (milliseconds) streams are silent. To see the effect of timeouts, it must be longer than those: 5 minutes, by hand. */
const SILENCE = Number(process.env.FEED_TEST_PROXY_SILENCE ?? 2_000);

/** The proxies of examples/proxies that run here, and their arguments for a configuration and a directory to write to. */
const PROXIES: Record<
  string,
  { file: string; args: (file: string, directory: string) => string[] }
> = {
  nginx: {
    file: 'nginx.conf',
    args: (file, at) => ['-p', at, '-e', 'stderr', '-g', `daemon off; pid ${at}/pid;`, '-c', file],
  },
  haproxy: { file: 'haproxy.cfg', args: (file) => ['-db', '-f', file] },
  envoy: { file: 'envoy.yaml', args: (file) => ['--log-level', 'warn', '-c', file] },
};

async function accepts(port: number): Promise<boolean> {
  const socket = connectSocket(port, '127.0.0.1');
  const connected = await once(socket, 'connect').then(
    () => true,
    () => false,
  );
  socket.destroy();
  return connected;
}

/** Starts a service, and a proxy with its example in front of it. Returns a client behind the proxy. */
async function behind(proxy: string): Promise<Feed> {
  const service = await ServiceProcess.start({ FEED_ENGINE: 'memory' });
  const { file, args } = PROXIES[proxy];
  const example = readFileSync(new URL(`../../examples/proxies/${file}`, import.meta.url), 'utf8');
  const port = await freePort();
  const servicePort = service.grpcAddress.split(':')[1];
  const directory = temporaryDirectory();
  const config = join(directory, file);
  const hasAddresses = /50050/.test(example) && /50051/.test(example);
  expect(hasAddresses).toBe(true);
  writeFileSync(config, example.replaceAll('50050', String(port)).replaceAll('50051', servicePort));
  const process = spawn(proxy, args(config, directory), {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  onTestFinished(async () => {
    process.kill('SIGTERM');
    if (process.exitCode === null && process.signalCode === null) await once(process, 'exit');
  });
  await until(() => accepts(port), `${proxy} on its port`);
  const feed = connect(`127.0.0.1:${port}`);
  onTestFinished(() => feed.close());
  return feed;
}

describe.each(Object.keys(PROXIES))('behind %s with the settings of its example', (proxy) => {
  const isHere = spawnSync(proxy, ['-v']).error === undefined;
  if (!isHere) console.log(`left out: ${proxy} is not installed here`);
  const timeout = 60_000 + 2 * SILENCE;

  test.skipIf(!isHere)(
    'a watch, an upload and a chat go on after a silence',
    { timeout },
    async () => {
      const feed = await behind(proxy);
      const states: string[] = [];
      const watch = feed.watch('t', {
        from: 'earliest',
        onState: ({ name }) => void states.push(name),
      });
      const events = watch[Symbol.asyncIterator]();
      const nextBody = async () => (await within(events.next(), 'an event')).value!.body;

      const chat = feed.chat('room', { from: 'a' });
      const other = feed.chat('room', { from: 'b' });
      const heard = other[Symbol.asyncIterator]();
      const said = heard.next();
      await until(async () => {
        await chat.send('before');
        return Promise.race([said.then(() => true), sleep(100, false)]);
      }, 'the other member');

      let retries = 0;
      async function* slow() {
        yield 'before';
        await sleep(SILENCE);
        yield 'after';
      }
      const upload = feed.upload('t', slow(), { onRetry: () => void retries++ });
      expect(await nextBody()).toBe('before');
      expect(await upload).toMatchObject({ stored: 2 });
      expect(await nextBody()).toBe('after');
      expect(retries).toBe(0);
      expect(states).not.toContain('reconnecting');

      await chat.send('after');
      const texts = new Set<string>();
      while (!texts.has('after')) texts.add((await within(heard.next(), 'a message')).value!.text);
      await watch[Symbol.asyncDispose]();
    },
  );

  test.skipIf(!isHere)('an upload may be large', async () => {
    const feed = await behind(proxy);
    const bodies = Array.from({ length: 100 }, () => 'x'.repeat(100_000));
    let retries = 0;
    expect(await feed.upload('t', bodies, { onRetry: () => void retries++ })).toMatchObject({
      stored: 100,
    });
    expect(retries).toBe(0);
  });
});
