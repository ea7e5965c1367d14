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
import { until } from '../support/wait.js';

const LIMIT = 200;

async function startWithLimit(limit: number): Promise<ServiceProcess> {
  const command = `ulimit -n ${limit}; exec bin/feed-server`;
  const service = ServiceProcess.shell(command, { FEED_DATA_DIR: temporaryDirectory() });
  await service.ready();
  return service;
}

/** Opens connections until the server has closed `refusals` of them. Returns a function that closes the others. */
async function fill(address: string, refusals: number): Promise<() => void> {
  const [host, port] = address.split(':');
  const sockets: Socket[] = [];
  const close = () => sockets.forEach((socket) => socket.destroy());
  onTestFinished(close);
  const refused = new Set<Socket>();
  while (refused.size < refusals) {
    const socket = connect(Number(port), host).on('error', () => {});
    socket.on('close', () => refused.add(socket)).resume();
    sockets.push(socket);
    await once(socket, 'connect');
    expect(sockets.length).toBeLessThan(LIMIT + refusals);
  }
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

const linesWith = (service: ServiceProcess, text: string): string[] =>
  service.output
    .join('')
    .split('\n')
    .filter((line) => line.includes(text));

describe('a process that may open few files', () => {
  test('logs the limit at its start', async () => {
    const service = await startWithLimit(LIMIT);
    const [line, ...more] = linesWith(service, 'ulimit -n');
    expect(JSON.parse(line)).toMatchObject({ level: 'warn', limit: LIMIT });
    expect(more).toEqual([]);
  });

  test('refuses connections beyond its limit, logs it once, and serves all others', async () => {
    const service = await startWithLimit(LIMIT);
    const client = service.connect();
    const seen: string[] = [];
    const watch = client.Watch({ topic: 'orders' });
    watch.on('data', ({ id }: Event) => seen.push(id)).on('error', () => {});
    await once(watch, 'metadata');
    const close = await fill(service.grpcAddress, 20);

    for (const path of ['healthz', 'readyz', 'healthz'])
      expect(await probe(service, path)).toBe(200);
    expect((await upload(client, [{ topic: 'orders', id: 'a' }])).result?.received).toBe(1);
    await until(() => seen.includes('a'), 'the event');
    const { error } = await upload(service.connect(), [{ topic: 'orders', id: 'b' }]);
    expect(error).toMatchObject({ code: status.UNAVAILABLE });
    expect(readdirSync(`/proc/${service.process.pid}/fd`).length).toBeLessThan(LIMIT);
    const lines = linesWith(service, 'gRPC refuses connections').map((line) => JSON.parse(line));
    expect(lines).toMatchObject([{ level: 'warn', limit: LIMIT }]);

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
    const close = await fill(service.httpAddress, 5);
    const { result } = await upload(service.connect(), [{ topic: 'orders', id: 'a' }]);
    expect(result?.received).toBe(1);
    expect(linesWith(service, 'HTTP refuses connections')).toHaveLength(1);
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
