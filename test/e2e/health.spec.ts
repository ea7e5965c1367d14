import { constants } from 'node:http2';
import { gzipSync } from 'node:zlib';
import { status } from '@grpc/grpc-js';
import { expect, onTestFinished, test } from 'vitest';
import { frame } from '../../src/wire/frames.js';
import { type RawCall, RawClient } from '../support/raw-client.js';
import { runService, ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until, within } from '../support/wait.js';
import { bytesField } from '../wire/events.js';
import { flagged } from '../faults/answer.js';

/** The statuses of an answer: field 1 of its message. Each message has a frame's header and two bytes. */
const SERVING = 1;
const SERVICE_UNKNOWN = 3;

async function connect(address: string): Promise<RawClient> {
  const raw = await RawClient.connect(address);
  onTestFinished(() => raw.close());
  return raw;
}

/** Opens a call of gRPC's health service with the name of a service. */
function open(raw: RawClient, method: 'Check' | 'Watch', name: string): RawCall {
  const call = raw.open('', { ':path': `/grpc.health.v1.Health/${method}` });
  call.stream.end(frame(bytesField(1, name)));
  return call;
}

/** Resolves with the first status that a watch is sent. */
function firstStatus({ stream }: RawCall): Promise<number> {
  return within(
    new Promise((resolve) => stream.once('data', (bytes: Buffer) => resolve(bytes[6]))),
    'a status',
  );
}

async function codeOf(call: RawCall): Promise<number> {
  return Number((await within(call.drop().trailers, 'the end'))?.['grpc-status']);
}

test('a watch of an unknown name is told so and stays open, and a check of it is NOT_FOUND', async () => {
  const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
  const raw = await connect(grpcAddress);
  const names = ['other', '__proto__', 'x'.repeat(4_000)];
  const watches = names.map((name) => open(raw, 'Watch', name));
  expect(await Promise.all(watches.map(firstStatus))).toEqual(names.map(() => SERVICE_UNKNOWN));
  for (const name of names) expect(await codeOf(open(raw, 'Check', name))).toBe(status.NOT_FOUND);
  expect(await firstStatus(open(raw, 'Watch', 'feed.v1.FeedService'))).toBe(SERVING);
  expect(watches.map(({ stream }) => stream.closed)).toEqual(names.map(() => false));
});

test.each(['Check', 'Watch'] as const)(
  'a request of 4 KiB is refused on both ports, also compressed: %s',
  async (method) => {
    const service = await ServiceProcess.start({
      FEED_DATA_DIR: temporaryDirectory(),
      FEED_HEALTH_ADDRESS: '127.0.0.1:0',
    });
    for (const address of [service.grpcAddress, service.healthAddress]) {
      const raw = await connect(address);
      const answer = codeOf(open(raw, method, 'x'.repeat(4_096)));
      expect(await answer).toBe(status.RESOURCE_EXHAUSTED);
      const headers = { ':path': `/grpc.health.v1.Health/${method}`, 'grpc-encoding': 'gzip' };
      const compressed = raw.open('', headers);
      compressed.stream.end(flagged(gzipSync(bytesField(1, 'x'.repeat(4_096)))));
      expect(await codeOf(compressed)).toBe(status.RESOURCE_EXHAUSTED);
    }
  },
);

test('a watch whose deadline passes before its request has ended does not count', async () => {
  const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
  const raw = await connect(grpcAddress);
  const headers = { ':path': '/grpc.health.v1.Health/Watch', 'grpc-timeout': '1S' };
  const late = Array.from({ length: 1_000 }, () => raw.open('', headers).send(bytesField(1, '')));
  expect(new Set(await Promise.all(late.map(codeOf)))).toEqual(new Set([status.DEADLINE_EXCEEDED]));
  expect(await firstStatus(open(raw, 'Watch', ''))).toBe(SERVING);
});

test('more than 1,000 watches of a connection, or 10,000 of all, are refused until others end', async () => {
  const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
  const full: RawClient[] = [];
  const watches: RawCall[] = [];
  const fill = async (): Promise<RawClient> => {
    const raw = await connect(grpcAddress);
    const added = Array.from({ length: 1_000 }, () => open(raw, 'Watch', ''));
    expect(new Set(await Promise.all(added.map(firstStatus)))).toEqual(new Set([SERVING]));
    full.push(raw);
    watches.push(...added);
    return raw;
  };
  const first = await fill();
  expect(await codeOf(open(first, 'Watch', 'other'))).toBe(status.RESOURCE_EXHAUSTED);
  for (let i = 1; i < 10; i++) await fill();
  const last = await connect(grpcAddress);
  expect(await codeOf(open(last, 'Watch', ''))).toBe(status.RESOURCE_EXHAUSTED);
  expect(await codeOf(open(last, 'Check', ''))).toBe(status.OK);

  watches[0].stream.close(constants.NGHTTP2_CANCEL);
  await first.pinged();
  expect(await firstStatus(open(first, 'Watch', ''))).toBe(SERVING);
  for (const raw of full.slice(1)) raw.close();
  const isServed = async (): Promise<boolean> => {
    const call = open(last, 'Watch', '');
    return (await Promise.race([firstStatus(call), codeOf(call)])) === SERVING;
  };
  await until(isServed, 'a place for another watch');
}, 60_000);
