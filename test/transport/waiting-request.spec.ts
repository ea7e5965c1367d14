import { constants } from 'node:http2';
import { PassThrough, Readable } from 'node:stream';
import { queryObjects } from 'node:v8';
import { gzipSync } from 'node:zlib';
import { status } from '@grpc/grpc-js';
import { expect, onTestFinished, test } from 'vitest';
import type { Call } from '../../src/grpc/transport/index.js';
import { frame, type ReceivedFrames } from '../../src/wire/frames.js';
import { codec } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { within } from '../support/wait.js';
import { serve } from './harness.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const INBOUND = { connection: 16 * MIB, total: 8 * MIB };
const { NGHTTP2_NO_ERROR } = constants;

/** The request of a watch of `kib` KiB. */
const request = (kib: number): Buffer =>
  frame(codec.watchRequest.serialize({ topic: 'x'.repeat(kib * KIB) }));

async function connected(inbound = INBOUND) {
  let served = 0;
  const watch = () => {
    served++;
    return Readable.from([]);
  };
  const { address } = await serve({ watch }, { inbound });
  const raw = await RawClient.connect(address);
  onTestFinished(() => raw.close());
  const goodbye = new Promise<string>((resolve) =>
    raw.session.on('goaway', (code, _last, data?: Buffer) => {
      if (data) resolve(`${code} ${data.toString()}`);
    }),
  );
  return { raw, goodbye, served: () => served };
}

/** How many bytes the buffers of this process hold. */
function held(): number {
  // It collects what nobody refers to first.
  queryObjects(Uint8Array, { format: 'count' });
  return process.memoryUsage().arrayBuffers;
}

const HOLDS_MOST = /^11 this connection holds most \(\d+ bytes\).*FEED_RECEIVE_BYTES/;

test.each([
  ['what was sent of them', 100, 200 * KIB],
  ['the streams themselves', 2_000, 0],
])('requests that are never whole are bounded by %s', async (_, streams, bytes) => {
  const { raw, goodbye, served } = await connected();
  const part = request(250).subarray(0, bytes);
  for (let i = 0; i < streams && !raw.session.destroyed; i++) {
    raw.open('Watch').stream.write(part);
    if (i % 20 === 0) await raw.pinged().catch(() => {});
  }
  expect(await within(goodbye, 'the end of the connection', 20_000)).toMatch(HOLDS_MOST);
  expect(served()).toBe(0);
});

test('requests that are never whole are bounded by what they take once they are decompressed', async () => {
  const { raw, goodbye } = await connected();
  const zipped = gzipSync(request(250).subarray(5));
  const bytes = Buffer.concat([Buffer.from([1, 0, 0, 0, 0]), zipped]);
  bytes.writeUInt32BE(zipped.length, 1);
  for (let i = 0; i < 40 && !raw.session.destroyed; i++)
    raw.open('Watch', { 'grpc-encoding': 'gzip' }).stream.write(bytes);
  expect(await within(goodbye, 'the end of the connection', 20_000)).toMatch(HOLDS_MOST);
});

test('a part of a request keeps nothing alive of what came with it', async () => {
  const upload = async (frames: AsyncIterable<ReceivedFrames>) => {
    for await (const _ of frames);
    return {};
  };
  const { address } = await serve({ upload });
  const raw = await RawClient.connect(address);
  onTestFinished(() => raw.close());
  const watch = raw.open('Watch');
  const { stream } = raw.open('UploadEvents');
  const part = request(250);
  const beside = frame(Buffer.alloc(60 * KIB));
  const before = held();
  for (let at = 0; at < 500; at++) {
    watch.stream.write(part.subarray(at, at + 1));
    stream.write(beside);
    await raw.pinged();
  }
  // Node reads up to 64 KiB at a time, and all chunks of it share its memory.
  expect(held() - before).toBeLessThan(8 * MIB);
});

test('requests that announce much take memory for what they sent only', async () => {
  const { raw } = await connected();
  const before = held();
  const part = request(250).subarray(0, 100);
  for (let i = 0; i < 200; i++) raw.open('Watch').stream.write(part);
  await raw.pinged();
  expect(held() - before).toBeLessThan(8 * MIB);
});

test('a request counts until it is whole, or its stream is closed', async () => {
  const { raw, served } = await connected();
  const whole = request(200);
  for (let i = 0; i < 60; i++) {
    const broken = raw.open('Watch');
    broken.stream.write(whole.subarray(0, 100 * KIB));
    const call = raw.open('Watch').drop();
    call.stream.end(whole);
    expect((await call.trailers)?.['grpc-status']).toBe('0');
    broken.stream.close(constants.NGHTTP2_CANCEL);
    await broken.closed;
  }
  expect(served()).toBe(60);
});

test.each([
  ['a second request', 'Watch', {}, [request(1), request(1)], status.UNIMPLEMENTED],
  ['an unknown method', 'Nothing', {}, [request(1)], status.UNIMPLEMENTED],
  [
    'a request that is not whole in time',
    'Watch',
    { 'grpc-timeout': '100m' },
    [],
    status.DEADLINE_EXCEEDED,
  ],
  ['a request that is too large', 'Watch', {}, [request(257)], status.RESOURCE_EXHAUSTED],
] as const)(
  'the stream of %s is closed with its answer, and not left open',
  async (_, method, headers, parts, code) => {
    const { raw } = await connected();
    const call = raw.open(method, headers).drop();
    for (const part of parts) call.stream.write(part);
    expect((await call.trailers)?.['grpc-status']).toBe(String(code));
    await within(call.closed, 'the end of the stream', 5_000);
    expect(call.stream.rstCode).toBe(NGHTTP2_NO_ERROR);
  },
);

test('an open watch keeps nothing of its request, however long that was', async () => {
  const watch = (_: Buffer, { signal }: Call) => {
    const open = new PassThrough();
    signal.addEventListener('abort', () => open.destroy());
    return open;
  };
  const { address } = await serve({ watch }, { inbound: INBOUND });
  const raw = await RawClient.connect(address);
  onTestFinished(() => raw.close());
  const before = held();
  for (let i = 0; i < 200; i++) {
    const call = raw.open('Watch').drop();
    call.stream.end(request(200));
    await call.headers;
  }
  // grpc-js kept each request, and the parts in which it came.
  expect(held() - before).toBeLessThan(100 * 200 * KIB);
  // Nor do the requests count any longer: together they are over what may be sent ahead.
  expect(raw.session.destroyed).toBe(false);
});

test('a window of an odd number of bytes is served', async () => {
  const { raw } = await connected({ connection: 1_000_001, total: 8 * MIB });
  const call = raw.open('Watch').drop();
  call.stream.end(request(1));
  expect((await call.trailers)?.['grpc-status']).toBe('0');
});
