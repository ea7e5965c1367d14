import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { frame } from '../../src/wire/frames.js';
import { codec, errorInfo, take } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { ServiceProcess } from '../support/service.js';
import { until, upToThrice, within } from '../support/wait.js';

const event = (id: string): Partial<Event> => ({ id, topic: 'orders', body: id });

/** Longer than any test here waits, so that no drain ends because its time is over. */
const DRAIN_TIMEOUT = '600s';
/** For longer than this (milliseconds), a quiet upload is idle (docs/protocol.md, "Shutdown"). */
const IDLE_AFTER = 1_000;

const start = (settings: Record<string, string> = {}): Promise<ServiceProcess> =>
  ServiceProcess.start({ FEED_ENGINE: 'memory', FEED_DRAIN_TIMEOUT: DRAIN_TIMEOUT, ...settings });

/** Sends SIGTERM, and waits until the service has begun to drain. */
async function drains(service: ServiceProcess): Promise<void> {
  service.process.kill('SIGTERM');
  await until(() => service.output.join('').includes('draining'), 'the drain');
}

/** Opens an upload on a connection of its own. */
async function openUpload(service: ServiceProcess) {
  const raw = await RawClient.connect(service.grpcAddress);
  onTestFinished(() => raw.close());
  const call = raw.open('UploadEvents').drop();
  await call.headers;
  const end = call.trailers.then((trailers) => {
    const details = Buffer.from(String(trailers?.['grpc-status-details-bin'] ?? ''), 'base64');
    return { status: trailers?.['grpc-status'], details: details.toString('latin1') };
  });
  const send = (one: Partial<Event>): void => void call.send(codec.event.serialize(one));
  return { call, send, finish: () => void call.stream.end(), end };
}

/** Opens an upload over HTTP, which has sent one event. */
async function openHttpUpload(service: ServiceProcess) {
  const upload = request(`http://${service.httpAddress}/v1/events`, { method: 'POST' });
  onTestFinished(() => void upload.destroy());
  upload.on('error', () => {}); // what is sent after the service has ended it
  const end = once(upload, 'response').then(([response]: IncomingMessage[]) => {
    response.resume();
    return { status: response.statusCode };
  });
  const send = (one: Partial<Event>): void => void upload.write(`${JSON.stringify(one)}\n`);
  send(event('first'));
  await take(service.connect(), { topic: 'orders', position: 1 }, 1);
  return { send, finish: () => void upload.end(), end };
}

test('a drain ends uploads that are idle at once, with what is stored of them', async () => {
  const service = await start();
  const client = service.connect();
  const answered = Promise.withResolvers<unknown>();
  const used = client.UploadEvents((error) => answered.resolve(error && errorInfo(error.metadata)));
  used.write(event('a'));
  used.write(event('b'));
  const unused = await openUpload(service);
  await take(client, { topic: 'orders', position: 1 }, 2);
  await sleep(IDLE_AFTER);
  service.process.kill('SIGTERM');
  expect(await within(answered.promise, 'the end of the upload')).toMatchObject({
    reason: 'DRAINING',
    metadata: { received: '2' },
  });
  expect(await unused.end).toMatchObject({
    status: '14',
    details: expect.stringMatching(/DRAINING[^]*received[^]*0/) as string,
  });
  expect(await service.ended()).toEqual({ code: 0, signal: null });
});

/** One event in parts of 1,000 bytes. */
const slowEvent = (): Buffer[] => {
  const framed = frame(codec.event.serialize({ ...event('a'), body: 'x'.repeat(15_000) }));
  return Array.from({ length: Math.ceil(framed.length / 1_000) }, (_, i) =>
    framed.subarray(i * 1_000, (i + 1) * 1_000),
  );
};

test.each([
  [
    'events come',
    Array.from({ length: 15 }, (_, i) => frame(codec.event.serialize(event(String(i))))),
  ],
  ['one event comes slowly', slowEvent()],
])('a drain lets an upload finish while %s', async (_, parts) => {
  const drained = async (): Promise<unknown> => {
    const service = await start();
    const { call, end } = await openUpload(service);
    await drains(service);
    for (const part of parts) {
      call.stream.write(part);
      await sleep(IDLE_AFTER / 5);
    }
    call.stream.end();
    const { status } = await end;
    expect(await service.ended()).toEqual({ code: 0, signal: null });
    return status;
  };
  // An upload whose client stands still for a second is idle, and rightly ended.
  expect(await upToThrice(drained, (status) => status === '0')).toBe('0');
});

test.each([
  ['gRPC', openUpload, '0'],
  ['HTTP', openHttpUpload, 200],
])(
  'a drain lets an upload over %s finish whose events come while the service stands still',
  async (_door, open, ok) => {
    const drained = async (): Promise<unknown> => {
      const service = await start();
      const { send, finish, end } = await open(service);
      await drains(service);
      for (let i = 0; i < 4; i++) {
        service.process.kill('SIGSTOP');
        send(event(String(i)));
        await sleep(1.5 * IDLE_AFTER);
        service.process.kill('SIGCONT');
        await sleep(IDLE_AFTER / 5);
      }
      finish();
      const { status } = await end;
      expect(await service.ended()).toEqual({ code: 0, signal: null });
      return status;
    };
    // Where the client stands still while the service runs, the upload is idle, and rightly ended.
    expect(await upToThrice(drained, (status) => status === ok)).toBe(ok);
  },
);

test('a drain lets an upload finish that its rate holds back', async () => {
  const service = await start({ FEED_UPLOAD_EVENTS_PER_SECOND: '10' });
  const client = service.connect();
  // The first second is free, and the second batch comes while the first one is held back for three.
  const { call, end } = await openUpload(service);
  call.stream.write(
    Buffer.concat(
      Array.from({ length: 40 }, (_, i) => frame(codec.event.serialize(event(String(i))))),
    ),
  );
  await take(client, { topic: 'orders', position: 1 }, 40);
  call.send(codec.event.serialize(event('last')));
  call.stream.end();
  await drains(service);
  expect((await end).status).toBe('0');
  expect(await service.ended()).toEqual({ code: 0, signal: null });
});
