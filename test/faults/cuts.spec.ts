import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { Link } from '../../bench/link.ts';
import { codec, connect, type FeedClient, upload } from '../support/client.js';
import { randomFrom } from '../support/random.js';
import { type RawCall, RawClient } from '../support/raw-client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually, until } from '../support/wait.js';
import { encodeChat, encodeEvent, framed } from '../wire/events.js';
import { clientsOf, NOTHING, type Observed } from './open-sets.js';
import { ServiceLog } from './service-log.js';

/** How many calls to cut at least. With 0, each way of cutting them is tried once. */
const CUTS = Number(process.env.FEED_TEST_CUTS ?? 0);
const MIB = 2 ** 20;
const CLIENTS = 4;
const WATCHES = 10;
/** The rate of a link (bytes a second), so slow that much is in flight. */
const RATE = 1_000_000;
const KEEPALIVE = { FEED_KEEPALIVE_TIME: '1s', FEED_KEEPALIVE_TIMEOUT: '10s' };
const SEED = Number(process.env.FEED_TEST_SEED ?? Date.now() % 1e9);
const random = randomFrom(SEED);
/** How long (milliseconds) the release of all calls may take on a busy machine. */
const RELEASE_TIMEOUT = 40_000;

interface BusyClient {
  readonly link: Link;
  readonly raw: RawClient;
  readonly calls: readonly RawCall[];
}

/** Makes a client with watches that replay, an endless upload and a chat, all over one slow link. */
async function busyClient(address: string, headers: Record<string, string>): Promise<BusyClient> {
  const link = await Link.to(address, { bytesPerSecond: RATE });
  const raw = await RawClient.connect(link.address, {
    initialWindowSize: random(4) === 0 ? 65_535 : 8 * MIB,
  });
  raw.session.setLocalWindowSize(16 * MIB);
  const request = framed(codec.watchRequest.serialize({ topic: 'big', position: 1 }));
  const watches = Array.from({ length: WATCHES }, () => {
    const call = raw.open('Watch', headers);
    call.stream.end(request);
    return call;
  });
  const uploading = raw.open('UploadEvents', headers);
  keepWriting(uploading, framed(encodeEvent({ topic: 'uploads', body: 'x'.repeat(16 * 1024) })));
  const chat = raw.open('Chat', headers);
  keepWriting(chat, framed(encodeChat({ text: 'x'.repeat(4 * 1024) })));
  return { link, raw, calls: [...watches, uploading, chat] };
}

function keepWriting({ stream }: RawCall, bytes: Buffer): void {
  const write = (): void => {
    if (!stream.destroyed) stream.write(bytes, write);
  };
  write();
}

/** The ways in which a connection or its streams end while much is in flight in both directions. */
const WAYS: Record<
  string,
  { headers?: Record<string, string>; cut: (client: BusyClient) => void }
> = {
  'its network dies': { cut: ({ link }) => link.cut() },
  'it vanishes': { cut: ({ link }) => link.close() },
  'it cancels all its calls': {
    cut: ({ calls }) => calls.forEach(({ stream }) => stream.close(8)),
  },
  'it stops reading, and its deadlines pass': {
    headers: { 'grpc-timeout': '5S' },
    cut: ({ calls }) => calls.forEach(({ stream }) => stream.pause()),
  },
};

async function start(dataDirectory: string): Promise<Observed> {
  const service = await ServiceProcess.start({
    ...KEEPALIVE,
    FEED_DATA_DIR: dataDirectory,
    FEED_LOG_LEVEL: 'debug',
    FEED_LOG_FORMAT: 'json',
    FEED_DRAIN_TIMEOUT: '1s',
    FEED_RETENTION_TOPIC_MAX_BYTES: '64MiB',
  });
  return { service, log: new ServiceLog(service) };
}

async function fill({ service }: Observed): Promise<void> {
  const client = connect(service.grpcAddress);
  const events = Array.from({ length: 1024 }, () => ({ topic: 'big', body: 'x'.repeat(1000) }));
  for (let i = 0; i < 40; i++) expect((await upload(client, events)).error).toBeUndefined();
  client.close();
}

/**
 * Uploads and watches on its own connection until it is stopped, and must not be disturbed by what happens to others. It
 * also makes the service collect garbage, so that memory that a cut connection still used by mistake would be reused.
 */
class Bystander {
  private readonly client: FeedClient;
  private readonly uploads: Promise<void>;
  private watched = 0;
  private uploaded = 0;
  private isStopped = false;

  constructor({ service }: Observed) {
    this.client = connect(service.grpcAddress);
    const call = this.client.Watch({ topic: 'bystander' });
    call.on('data', () => this.watched++);
    call.on('error', () => {});
    this.uploads = once(call, 'metadata').then(() => this.keepUploading());
    this.uploads.catch(() => {}); // stop() throws this error
    onTestFinished(() => this.stop());
  }

  private async keepUploading(): Promise<void> {
    const events = Array.from({ length: 200 }, () => ({
      topic: 'bystander',
      body: 'y'.repeat(500),
    }));
    while (!this.isStopped) {
      const { error } = await upload(this.client, events);
      expect(error).toBeUndefined();
      this.uploaded += events.length;
    }
  }

  async stop(): Promise<void> {
    this.isStopped = true;
    await this.uploads;
    await until(() => this.watched >= this.uploaded, 'what it uploaded');
    this.client.close();
  }
}

/** Waits until only the bystander's calls are open. */
async function released(observed: Observed): Promise<void> {
  const isReleased = (): boolean => {
    const { watches, uploads, chats, members } = observed.log.open;
    return watches === 1 && uploads! <= 1 && chats === 0 && members === 0;
  };
  await until(isReleased, 'only the bystander to be left', RELEASE_TIMEOUT).catch((error: Error) =>
    expect(observed.log.open, error.message).toEqual({ ...NOTHING, watches: 1 }),
  );
}

/** Opens busy clients, and waits until each has received its first events. */
async function busyClients({ service }: Observed, headers = {}): Promise<BusyClient[]> {
  const clients = await Promise.all(
    Array.from({ length: CLIENTS }, () => busyClient(service.grpcAddress, headers)),
  );
  const received = clients.map(() => 0);
  for (const [i, { calls }] of clients.entries())
    for (const { stream } of calls)
      stream.on('data', (bytes: Buffer) => (received[i] += bytes.length));
  onTestFinished(() => clients.forEach(release));
  await until(() => received.every((bytes) => bytes > 0), 'the first events');
  await sleep(random(300));
  return clients;
}

function release({ raw, link }: BusyClient): void {
  raw.close();
  link.close();
}

test(
  'the service goes on, and releases all calls, whatever cuts them while much is in flight',
  { timeout: 300_000 + CUTS * 200 },
  async () => {
    console.log(`FEED_TEST_SEED=${SEED}`);
    const dataDirectory = temporaryDirectory();
    let observed = await start(dataDirectory);
    await fill(observed);
    let cuts = 0;
    do {
      const bystander = new Bystander(observed);
      for (const [way, { headers, cut }] of Object.entries(WAYS)) {
        const clients = await busyClients(observed, headers);
        clients.forEach(cut);
        cuts += CLIENTS * (WATCHES + 2);
        await released(observed);
        clients.forEach(release);
        // The bystander's.
        await eventually(() => expect(clientsOf(observed)).toHaveLength(1), RELEASE_TIMEOUT);
        expect(observed.service.process.exitCode, way).toBeNull();
        expect(observed.service.process.signalCode, way).toBeNull();
      }
      await bystander.stop();
      const clients = await busyClients(observed);
      cuts += CLIENTS * (WATCHES + 2);
      expect(await observed.service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
      clients.forEach(release);
      if (CUTS > 0) console.log(`${cuts} calls cut`);
      observed = await start(dataDirectory);
    } while (cuts < CUTS);
  },
);
