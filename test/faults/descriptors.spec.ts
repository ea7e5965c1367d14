import { once } from 'node:events';
import { get } from 'node:http';
import { connect, type Socket } from 'node:net';
import { readdirSync } from 'node:fs';
import { status } from '@grpc/grpc-js';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { connectionLimits } from '../../src/config/descriptors.js';
import { upload } from '../support/client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually, until } from '../support/wait.js';

const LIMIT = 200;

async function startWithLimit(limit: number): Promise<ServiceProcess> {
  const command = `ulimit -n ${limit}; exec bin/feed-server`;
  const service = ServiceProcess.shell(command, { FEED_DATA_DIR: temporaryDirectory() });
  await service.ready();
  return service;
}

/**
 * Opens connections, `refusals` more than the port takes, and waits until the server has closed so many. Returns a function
 * that closes the others.
 */
async function fill(address: string, limit: number, refusals: number): Promise<() => void> {
  const [host, port] = address.split(':');
  const sockets: Socket[] = [];
  const close = () => sockets.forEach((socket) => socket.destroy());
  onTestFinished(close);
  let refused = 0;
  for (let i = 0; i < limit + refusals; i++) {
    const socket = connect(Number(port), host).on('error', () => {});
    socket.on('close', () => refused++).resume();
    sockets.push(socket);
    await once(socket, 'connect');
  }
  await until(
    () => refused >= refusals,
    () => `${refusals} refused connections: ${refused} are closed`,
  );
  return close;
}

/** Sends a probe on a new connection, and returns its HTTP status. */
const probe = ({ httpAddress }: ServiceProcess, path: string): Promise<number> =>
  new Promise((resolve, reject) => {
    const request = get(`http://${httpAddress}/${path}`, { agent: false }, (response) =>
      resolve(response.resume().statusCode!),
    );
    request.on('error', reject);
  });

/** Waits until the service has logged exactly one line with this text, and returns it, parsed. */
const onlyLineWith = (service: ServiceProcess, text: string): Promise<unknown> =>
  eventually(() => {
    const lines = service.output.join('').split('\n');
    const found = lines.filter((line) => line.includes(text));
    expect(found).toHaveLength(1);
    return JSON.parse(found[0]) as unknown;
  });

describe('a process that may open few files', () => {
  test('logs the limit at its start', async () => {
    const service = await startWithLimit(LIMIT);
    expect(await onlyLineWith(service, 'ulimit -n')).toMatchObject({ level: 'warn', limit: LIMIT });
  });

  test('refuses connections beyond its limit, logs it once, and serves all others', async () => {
    const service = await startWithLimit(LIMIT);
    const client = service.connect();
    const seen: string[] = [];
    const watch = client.Watch({ topic: 'orders' });
    watch.on('data', ({ id }: Event) => seen.push(id)).on('error', () => {});
    await once(watch, 'metadata');
    const close = await fill(service.grpcAddress, connectionLimits(LIMIT).grpc, 20);

    for (const path of ['healthz', 'readyz', 'healthz'])
      expect(await probe(service, path)).toBe(200);
    expect((await upload(client, [{ topic: 'orders', id: 'a' }])).result?.received).toBe(1);
    await until(() => seen.includes('a'), 'the event');
    const { error } = await upload(service.connect(), [{ topic: 'orders', id: 'b' }]);
    expect(error).toMatchObject({ code: status.UNAVAILABLE });
    expect(readdirSync(`/proc/${service.process.pid}/fd`).length).toBeLessThan(LIMIT);
    const line = await onlyLineWith(service, 'gRPC refuses connections');
    expect(line).toMatchObject({ level: 'warn', limit: LIMIT });

    close();
    const later = service.connect();
    await until(
      async () => (await upload(later, [{ topic: 'orders', id: 'c' }])).result !== undefined,
      'an upload once there is room',
    );
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  });

  test('takes gRPC connections while the HTTP port has all that it may have, and logs that', async () => {
    const service = await startWithLimit(LIMIT);
    const close = await fill(service.httpAddress, connectionLimits(LIMIT).http, 5);
    const { result } = await upload(service.connect(), [{ topic: 'orders', id: 'a' }]);
    expect(result?.received).toBe(1);
    await onlyLineWith(service, 'HTTP refuses connections');
    close();
    await until(
      () =>
        probe(service, 'healthz').then(
          (code) => code === 200,
          () => false,
        ),
      'a probe once there is room',
    );
  });
});

test.each([100, 1024, 20_000, 1_048_576])(
  'the limits of connections leave room within %i descriptors',
  (descriptors) => {
    const { grpc, http } = connectionLimits(descriptors);
    expect(grpc).toBeGreaterThan(http);
    expect(http).toBeGreaterThanOrEqual(1);
    expect(grpc + http).toBeLessThanOrEqual(descriptors - 64);
  },
);

test('connections are not limited where no limit of descriptors is known', () => {
  expect(connectionLimits(Infinity)).toMatchObject({ grpc: Infinity, http: Infinity });
});
