import { once } from 'node:events';
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { frame } from '../../src/wire/frames.js';
import {
  callHeaders,
  DATA,
  END_STREAM,
  framesOf,
  h2,
  type H2Frame,
  header,
  headerFrames,
  HEADERS,
  PING,
  PREFACE,
  RST_STREAM,
  SETTINGS,
} from '../faults/raw-socket.js';
import { Authority } from '../support/certificates.js';
import { codec } from '../support/client.js';
import { scrape } from '../support/metrics.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until } from '../support/wait.js';

async function serve(settings: Record<string, string> = {}): Promise<ServiceProcess> {
  const { cert, key } = new Authority(temporaryDirectory()).server();
  return ServiceProcess.start({
    FEED_ENGINE: 'memory',
    FEED_TLS_CERT: cert,
    FEED_TLS_KEY: key,
    FEED_METRICS_ADDRESS: '127.0.0.1:0',
    ...settings,
  });
}

const TLS = { rejectUnauthorized: false, ALPNProtocols: ['h2'] };

async function connectionsOf({ metricsAddress }: ServiceProcess): Promise<number | undefined> {
  return (await scrape(metricsAddress)).value('feed_connections');
}

function portOf({ grpcAddress }: ServiceProcess): number {
  return Number(grpcAddress.split(':')[1]);
}

/** Passes on what is written to it, or keeps it from hold() to release(), which then sends all of it at once. */
class HeldSocket extends Duplex {
  private kept: Buffer[] | undefined;

  constructor(private readonly socket: Socket) {
    super();
    socket.on('data', (bytes) => this.push(bytes)).on('close', () => this.push(null));
  }

  hold(): void {
    this.kept = [];
  }

  release(): void {
    this.socket.write(Buffer.concat(this.kept!));
    this.kept = undefined;
  }

  override _read(): void {}

  override _write(bytes: Buffer, _encoding: string, done: () => void): void {
    if (this.kept) this.kept.push(bytes);
    else this.socket.write(bytes);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.socket.destroy();
    done(error);
  }
}

/** A call without a content type. */
const noType = Buffer.concat([
  header(':method', 'POST'),
  header(':scheme', 'http'),
  header(':authority', 'feed'),
  header(':path', '/feed.v1.FeedService/UploadEvents'),
]);

/** Sends two records of TLS in one segment, so that the server reads the second while it writes the answer to the first, a PING. */
async function sendWhileAnswering(
  service: ServiceProcess,
  before: Buffer,
  second: Buffer,
): Promise<{ client: TLSSocket; received: () => Buffer }> {
  const raw = connectTcp({ port: portOf(service), host: '127.0.0.1' });
  const held = new HeldSocket(raw);
  const client = connectTls({ socket: held, ...TLS });
  for (const socket of [raw, held, client]) socket.on('error', () => {});
  onTestFinished(() => void client.destroy());
  const chunks: Buffer[] = [];
  client.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(client, 'secureConnect');
  client.write(Buffer.concat([PREFACE, h2(SETTINGS, 0, 0), h2(SETTINGS, 1, 0), before]));
  await sleep(30);
  held.hold();
  for (const record of [h2(PING, 0, 0, Buffer.alloc(8)), second])
    await new Promise((resolve) => client.write(record, resolve));
  held.release();
  return { client, received: () => Buffer.concat(chunks) };
}

const HEALTH = headerFrames(1, callHeaders('/grpc.health.v1.Health/Check'));

test.each([
  ['of an unknown method', callHeaders('/nothing/Here')],
  ['without a content type', noType],
  ['of an upload', callHeaders('/feed.v1.FeedService/UploadEvents')],
  ['of a watch', callHeaders('/feed.v1.FeedService/Watch')],
])('a call %s that is reset before the server looks at it harms nobody', async (_, headers) => {
  const service = await serve();
  for (let i = 0; i < 10; i++) {
    const second = [
      h2(DATA, 0, 1, '\0'),
      headerFrames(3, headers),
      h2(RST_STREAM, 0, 3, '\0\0\0\x08'),
    ];
    const { client } = await sendWhileAnswering(service, HEALTH, Buffer.concat(second));
    await sleep(30);
    client.destroy();
  }
  expect(await connectionsOf(service)).toBeLessThanOrEqual(10);
});

test.each([
  ['uploads', '/feed.v1.FeedService/UploadEvents', codec.event.serialize({ topic: 't', id: 'x' })],
  ['requests', '/feed.v1.FeedAdmin/GetTopic', Buffer.from([10, 1, 116])],
])(
  '%s that have come whole before the server looks at them lose nothing',
  async (kind, path, message) => {
    const service = await serve({ FEED_DEDUP_IDS: '0' });
    const calls = 20;
    for (let i = 0; i < calls; i++) {
      const headers = headerFrames(3, callHeaders(path));
      const body = h2(DATA, END_STREAM, 3, frame(Buffer.from(message)));
      const second = Buffer.concat([h2(DATA, 0, 1, '\0'), headers, body]);
      const { client, received } = await sendWhileAnswering(service, HEALTH, second);
      const answer = (): H2Frame[] => framesOf(received()).filter(({ stream }) => stream === 3);
      const isEnd = ({ type, flags }: H2Frame): boolean =>
        type === RST_STREAM || (type === HEADERS && (flags & END_STREAM) !== 0);
      await until(() => answer().some(isEnd), 'the end of the call');
      // Trailers, and no reset.
      expect(answer().map(({ type }) => type)).toEqual([HEADERS, DATA, HEADERS]);
      client.destroy();
    }
    if (kind !== 'uploads') return;
    const page = await scrape(service.metricsAddress);
    expect(page.value('feed_events_received_total')).toBe(calls);
  },
);

test('the sockets of clients that die while they are sent events are closed', async () => {
  const service = await serve({ FEED_KEEPALIVE_TIME: '1s', FEED_KEEPALIVE_TIMEOUT: '1s' });
  const connected = (socket?: TLSSocket): ClientHttp2Session => {
    const session = connectHttp2(`https://${service.grpcAddress}`, {
      ...TLS,
      settings: { initialWindowSize: 2 ** 20 },
      ...(socket && { createConnection: () => socket }),
    });
    onTestFinished(() => session.destroy());
    return session.on('error', () => {});
  };
  const call = (session: ClientHttp2Session, method: string) => {
    const headers = { ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' };
    const stream = session.request({ ...headers, ':path': `/feed.v1.FeedService/${method}` });
    stream.on('error', () => {}).resume();
    return stream;
  };
  const upload = call(connected(), 'UploadEvents');
  const event = frame(codec.event.serialize({ topic: 't', body: 'x'.repeat(2_000) }));
  const sending = setInterval(() => {
    for (let i = 0; i < 4; i++) upload.write(event);
  }, 2);
  onTestFinished(() => clearInterval(sending));

  const request = frame(codec.watchRequest.serialize({ topic: 't' }));
  const watchAndDie = async (): Promise<void> => {
    const socket = connectTls({ port: portOf(service), host: '127.0.0.1', ...TLS });
    socket.on('error', () => {});
    const session = connected(socket);
    for (let n = 0; n < 20; n++) call(session, 'Watch').end(request);
    await sleep(100 + 50 * Math.random());
    socket.destroy();
  };
  for (let i = 0; i < 40; i++) await Promise.all([1, 2, 3, 4].map(watchAndDie));
  await until(
    async () => (await connectionsOf(service)) === 1,
    'the end of all connections but that of the upload',
    30_000,
  );
});
