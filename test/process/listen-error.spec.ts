import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { readConfig } from '../../src/config/config.js';
import { listenError } from '../../src/process/listen-error.js';
import { runService } from '../support/service.js';

const DOORS = [
  ['gRPC', 'FEED_GRPC_ADDRESS'],
  ['HTTP', 'FEED_HTTP_ADDRESS'],
  ['health', 'FEED_HEALTH_ADDRESS'],
  ['metrics', 'FEED_METRICS_ADDRESS'],
] as const;

/** Returns what a start says that can't listen. */
async function refusalOf(setting: string, address: string): Promise<string> {
  const started = runService({ FEED_ENGINE: 'memory', [setting]: address });
  const { message } = await started.then(
    () => new Error('it started'),
    (error: Error) => error,
  );
  return message;
}

test.each(DOORS)('%s says that its port is taken, and what to do', async (door, setting) => {
  const other = createServer().listen(0, '127.0.0.1');
  onTestFinished(() => void other.close());
  await once(other, 'listening');
  const address = `127.0.0.1:${(other.address() as AddressInfo).port}`;
  expect(await refusalOf(setting, address)).toBe(
    `${door} can't listen on ${address}: the port is taken (EADDRINUSE). Stop what has it, or set ${setting} to another one`,
  );
});

test.each(DOORS)('%s says that a name can not be resolved', async (door, setting) => {
  expect(await refusalOf(setting, 'nohost.invalid:1')).toBe(
    `${door} can't listen on nohost.invalid:1: the name nohost.invalid can't be resolved. Set ${setting} to an address of ` +
      'this machine, such as 127.0.0.1',
  );
});

test.each(DOORS)("%s says that an address is another machine's", async (door, setting) => {
  expect(await refusalOf(setting, '192.0.2.1:1')).toBe(
    `${door} can't listen on 192.0.2.1:1: this machine does not have the address (EADDRNOTAVAIL). Set ${setting} to one ` +
      'that it has, or to 0.0.0.0 for all',
  );
});

test('a port that only root may have, and any other error, name the setting', () => {
  const { httpAddress } = readConfig({ FEED_HTTP_ADDRESS: '127.0.0.1:80' }, false);
  const textOf = (message: string): string =>
    listenError('HTTP', 'FEED_HTTP_ADDRESS', httpAddress, new Error(message)).message;
  expect(textOf('listen EACCES: permission denied 127.0.0.1:80')).toBe(
    "HTTP can't listen on 127.0.0.1:80: this process may not have the port (EACCES). Set FEED_HTTP_ADDRESS to one from 1024 " +
      'on, or give the process the right',
  );
  expect(textOf('no luck')).toBe(
    "HTTP can't listen on 127.0.0.1:80: no luck. Set FEED_HTTP_ADDRESS to another address",
  );
});
