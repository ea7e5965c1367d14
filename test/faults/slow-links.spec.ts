import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { Link, type LinkOptions } from '../../bench/link.ts';
import { codec, connect, upload } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until } from '../support/wait.js';
import { encodeChat, encodeEvent, eventsIn } from '../wire/events.js';

/** How long (seconds) a watch is read over a slow link. `npm run faults` sets ten minutes. */
const WATCH_SECONDS = Number(process.env.FEED_TEST_SLOW_SECONDS ?? 10);
/** How many uploads are made beside replays. */
const UPLOADS = Number(process.env.FEED_TEST_SLOW_UPLOADS ?? 2);
const MIB = 2 ** 20;

/**
 * Shorter than it takes a slow link to carry all that the service, the kernel and the link together may hold. The tests' own
 * process answers PINGs, and may stand still for five seconds.
 */
const KEEPALIVE = { FEED_KEEPALIVE_TIME: '2s', FEED_KEEPALIVE_TIMEOUT: '5s' };

async function start(settings: Record<string, string> = {}): Promise<ServiceProcess> {
  return ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory(), ...settings });
}

async function fill(service: ServiceProcess, topic: string, mebibytes: number): Promise<void> {
  const client = service.connect();
  const events = Array.from({ length: 64 }, () => ({ topic, body: 'x'.repeat(MIB / 64) }));
  for (let i = 0; i < mebibytes; i++) {
    expect((await upload(client, events)).error).toBeUndefined();
  }
}

async function slowLink(service: ServiceProcess, options: LinkOptions): Promise<Link> {
  const link = await Link.to(service.grpcAddress, options);
  onTestFinished(() => link.close());
  return link;
}

interface ReadWatch {
  bytes: number;
  readonly chunks: Buffer[];
  readonly ended: Promise<void>;
  isOpen: boolean;
}

function watch(raw: RawClient, topic: string, keep = false): ReadWatch {
  const call = raw.open('Watch').send(codec.watchRequest.serialize({ topic, position: 1 }));
  call.stream.end();
  const read: ReadWatch = { bytes: 0, chunks: [], ended: call.closed, isOpen: true };
  void call.closed.then(() => (read.isOpen = false));
  call.stream.on('data', (chunk: Buffer) => {
    read.bytes += chunk.length;
    if (keep) read.chunks.push(chunk);
  });
  return read;
}

/** Returns the frames that have arrived completely. */
function completeFrames(bytes: Buffer): Buffer[] {
  const frames = [];
  for (let at = 0; at + 5 <= bytes.length;) {
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    if (end > bytes.length) break;
    frames.push(bytes.subarray(at, end));
    at = end;
  }
  return frames;
}

async function connectOver(link: Link, window: number): Promise<RawClient> {
  const raw = await RawClient.connect(link.address, { initialWindowSize: window });
  raw.session.setLocalWindowSize(2 * window);
  onTestFinished(() => raw.close());
  return raw;
}

test.each([
  { windows: '64 KiB', window: 65_535 },
  { windows: '8 MiB a stream and 16 MiB a connection', window: 8 * MIB },
])(
  'a watch that replays over 100 KB/s goes on, with windows of $windows',
  { timeout: WATCH_SECONDS * 1000 + 180_000 },
  async ({ window }) => {
    const service = await start(WATCH_SECONDS > 60 ? {} : KEEPALIVE);
    await fill(service, 'big', Math.ceil(WATCH_SECONDS / 10) + 8);
    const link = await slowLink(service, { bytesPerSecond: 100_000 });
    const raw = await connectOver(link, window);
    const read = watch(raw, 'big');
    const end = performance.now() + WATCH_SECONDS * 1000;
    while (read.isOpen && performance.now() < end) await sleep(100);
    const least = (WATCH_SECONDS * 100_000) / 2;
    await until(
      () => !read.isOpen || read.bytes > least,
      () => `${least} bytes: ${read.bytes} have come`,
    );
    expect(read.isOpen).toBe(true);
  },
);

test(
  'a live watch over 100 KB/s that is sent more than that for a while loses nothing',
  { timeout: 180_000 },
  async () => {
    const service = await start(KEEPALIVE);
    const client = service.connect();
    const link = await slowLink(service, { bytesPerSecond: 100_000 });
    const raw = await connectOver(link, 8 * MIB);
    const read = watch(raw, 'live', true);
    const events = 60;
    // As soon as the machine can, so that the link is behind by far more than it takes within the keepalive's time.
    for (let from = 0; from < events; from += 10) {
      const some = Array.from({ length: 10 }, (_, i) => ({
        topic: 'live',
        id: String(from + i),
        body: 'x'.repeat(32 * 1024),
      }));
      expect((await upload(client, some)).error).toBeUndefined();
    }
    const framesOf = (): Buffer[] => completeFrames(Buffer.concat(read.chunks));
    await until(() => framesOf().length >= events, 'all events', 60_000);
    expect(read.isOpen).toBe(true);
    const ids = eventsIn(Buffer.concat(framesOf())).map(({ id }) => id);
    expect(ids).toEqual(Array.from({ length: events }, (_, i) => String(i)));
  },
);

test.each([
  { watches: 10, rate: 300_000, window: 65_535 },
  { watches: 10, rate: 300_000, window: 8 * MIB },
  { watches: 100, rate: 1_250_000, window: 65_535 },
])(
  'an upload beside $watches replays over $rate bytes a second, windows of $window, gets its result within 20 s',
  { timeout: UPLOADS * 25_000 + 180_000 },
  async ({ watches, rate, window }) => {
    const service = await start();
    await fill(service, 'big', 40);
    const link = await slowLink(service, { bytesPerSecond: rate });
    const raw = await connectOver(link, window);
    const reads = Array.from({ length: watches }, () => watch(raw, 'big'));
    await until(() => reads.some(({ bytes }) => bytes > 0), 'the first events', 20_000);
    for (let i = 0; i < UPLOADS; i++) {
      const call = raw.open('UploadEvents');
      call.send(encodeEvent({ id: randomUUID(), topic: 'uploads', body: 'hello' }));
      call.stream.end();
      call.drop();
      const started = performance.now();
      expect((await call.trailers)?.['grpc-status']).toBe('0');
      const took = performance.now() - started;
      expect(took).toBeLessThan(20_000);
      if (process.env.FEED_TEST_SLOW_UPLOADS) console.log(`answered in ${Math.round(took)} ms`);
    }
    expect(reads.every(({ isOpen }) => isOpen)).toBe(true);
  },
);

test(
  'a chat that sends bytes that are no message gets the answers to its earlier messages, over a busy slow link',
  { timeout: 180_000 },
  async () => {
    const service = await start();
    await fill(service, 'big', 20);
    const link = await slowLink(service, { bytesPerSecond: 100_000 });
    const raw = await connectOver(link, 65_535);
    const reads = Array.from({ length: 10 }, () => watch(raw, 'big'));
    await until(() => reads.some(({ bytes }) => bytes > 0), 'the first events', 20_000);
    const call = raw.open('Chat');
    const texts = Array.from({ length: 8 }, () => 'x'.repeat(8 * 1024));
    for (const text of texts) call.send(encodeChat({ text }));
    call.send(Buffer.from([0xff]));
    let bytes = 0;
    call.stream.on('data', (chunk: Buffer) => (bytes += chunk.length));
    expect((await call.trailers)?.['grpc-status']).toBe('3');
    expect(bytes).toBeGreaterThan(texts.join('').length);
  },
);

/** Silence (milliseconds) after which a client is dead. The tests' own process answers PINGs, and may stand still for five seconds. */
const SILENCE = 700 + 5_000;
const SHORT_SILENCE = {
  FEED_KEEPALIVE_TIME: '700ms',
  FEED_KEEPALIVE_TIMEOUT: '5s',
  FEED_LOG_FORMAT: 'json',
};
/** The log has tenths of a second. */
const LEAST_SECONDS = SILENCE / 1_000 - 0.05;
const SILENT = /nothing came from it for ([\d.]+) s/;

test('a client whose network dies is gone after FEED_KEEPALIVE_TIME and FEED_KEEPALIVE_TIMEOUT', async () => {
  const service = await start(SHORT_SILENCE);
  const link = await slowLink(service, {});
  const client = connect(link.address);
  onTestFinished(() => client.close());
  const call = client.Watch({ topic: 'quiet' });
  call.on('error', () => {});
  await new Promise((resolve) => call.on('metadata', resolve));
  // An idle client answers PINGs, and may stay for as long as it likes.
  await sleep(2 * SILENCE);
  const output = (): string => service.output.join('');
  expect(output()).not.toContain('call ended');
  link.cut();
  await until(() => output().includes('call ended'), 'the end of the call');
  expect(Number(SILENT.exec(output())?.[1])).toBeGreaterThanOrEqual(LEAST_SECONDS);
});

test('a client that says goodbye (GOAWAY), goes on watching, and vanishes is found as well', async () => {
  const service = await start(SHORT_SILENCE);
  const output = (): string => service.output.join('');
  const link = await slowLink(service, {});
  const raw = await connectOver(link, MIB);
  const call = raw.open('Watch').send(codec.watchRequest.serialize({ topic: 'quiet' }));
  call.stream.end();
  await new Promise((resolve) => call.stream.once('response', resolve));
  raw.session.goaway();
  await raw.pinged(); // the service has read the goodbye
  link.cut();
  await until(() => output().includes('call ended'), 'the end of the call');
  expect(Number(SILENT.exec(output())?.[1])).toBeGreaterThanOrEqual(LEAST_SECONDS);
});

test('a client that answers PINGs is not taken for dead because the service stood still', async () => {
  const service = await start(SHORT_SILENCE);
  const client = service.connect();
  const call = client.Watch({ topic: 'quiet' });
  call.on('error', () => {});
  await new Promise((resolve) => call.on('metadata', resolve));
  for (let i = 0; i < 3; i++) {
    service.process.kill('SIGSTOP');
    await sleep(SILENCE + 1_000);
    service.process.kill('SIGCONT');
    await sleep(SILENCE + 1_000);
  }
  expect(service.output.join('')).not.toContain('call ended');
});

test(
  'watches go on over a link that is fast, then slow, then fast',
  { timeout: 320_000 },
  async () => {
    const service = await start();
    // The link's timers carry so much to all watches in 10 s. A busy machine may take ten times as long.
    const mebibytes = 12;
    await fill(service, 'big', mebibytes);
    const link = await slowLink(service, { delay: 5, bufferBytes: 64 * 1024 });
    link.bytesPerSecond = 20_000_000;
    const raw = await connectOver(link, 8 * MIB);
    const reads = Array.from({ length: 10 }, () => watch(raw, 'big'));
    const received = (): number => reads.reduce((sum, { bytes }) => sum + bytes, 0);
    await until(() => received() > 20 * MIB, 'the first events', 100_000);
    link.bytesPerSecond = 300_000;
    const before = received();
    await until(() => received() > before + 3 * MIB, 'events over the slow link', 100_000);
    link.bytesPerSecond = 20_000_000;
    const isAll = ({ bytes }: ReadWatch): boolean => bytes > mebibytes * MIB;
    await until(() => reads.every(isAll), 'all events', 100_000);
  },
);
