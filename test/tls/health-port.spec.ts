import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { Client, credentials } from '@grpc/grpc-js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until, within } from '../support/wait.js';
import { CALLS } from './calls.js';

const start = (settings: Record<string, string> = {}): Promise<ServiceProcess> =>
  ServiceProcess.start({
    FEED_DATA_DIR: temporaryDirectory(),
    FEED_HEALTH_ADDRESS: '127.0.0.1:0',
    ...settings,
  });

function open(address: string): Socket {
  const [host, port] = address.split(':');
  const socket = connect(Number(port), host).on('error', () => {});
  onTestFinished(() => void socket.destroy());
  return socket.resume();
}

test('connections that are held open keep no probe out', async () => {
  const { healthAddress } = await start();
  const held: Socket[] = [];
  let closed = 0;
  for (let i = 0; i < 40; i++) {
    const socket = open(healthAddress).on('close', () => closed++);
    await once(socket, 'data'); // the server's SETTINGS
    held.push(socket);
    expect(await CALLS.health(healthAddress, {})).toBe('OK');
  }
  await until(
    () => closed >= 40 - 16,
    () => `the end of the oldest connections; ${closed} of 40 ended`,
  );
  expect(held.at(-1)!.destroyed).toBe(false);
});

/** Resolves with the answer's message: field 1 is the status, 1 is SERVING and 2 is NOT_SERVING. */
function check(address: string): Promise<string> {
  const client = new Client(address, credentials.createInsecure());
  const asIs = (bytes: Buffer): Buffer => bytes;
  return within(
    new Promise((resolve) =>
      client.makeUnaryRequest(
        '/grpc.health.v1.Health/Check',
        asIs,
        asIs,
        Buffer.alloc(0),
        (error, reply) => {
          client.close();
          resolve(error ? String(error.code) : reply!.toString('hex'));
        },
      ),
    ),
    'an answer',
  );
}

test('it says that the service drains, and goes on until the end', async () => {
  // A busy machine needs seconds to ask.
  const service = await start({ FEED_DRAIN_DELAY: '15s' });
  expect(await check(service.healthAddress)).toBe('0801');
  service.process.kill('SIGTERM');
  await until(async () => (await check(service.healthAddress)) === '0802', 'NOT_SERVING');
  expect(await service.ended()).toEqual({ code: 0, signal: null });
});

test('a watch of health does not hold up the end', async () => {
  const service = await start({ FEED_DRAIN_TIMEOUT: '100ms' });
  const client = new Client(service.healthAddress, credentials.createInsecure());
  onTestFinished(() => client.close());
  const asIs = (bytes: Buffer): Buffer => bytes;
  const watch = client.makeServerStreamRequest(
    '/grpc.health.v1.Health/Watch',
    asIs,
    asIs,
    Buffer.alloc(0),
  );
  watch.on('error', () => {});
  await once(watch, 'data');
  expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
});

test('a port that is taken ends the start, and the message names the setting', async () => {
  const { healthAddress } = await start();
  const second = ServiceProcess.spawn({
    FEED_DATA_DIR: temporaryDirectory(),
    FEED_HEALTH_ADDRESS: healthAddress,
  });
  expect(await second.ended()).toEqual({ code: 1, signal: null });
  expect(second.output.join('')).toMatch(
    /health can't listen on .*EADDRINUSE.*FEED_HEALTH_ADDRESS/,
  );
});
