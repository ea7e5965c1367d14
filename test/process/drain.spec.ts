import { createServer, request as send, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { expect, onTestFinished, test } from 'vitest';
import type { Door } from '../../src/feed/door.js';
import { FeedError } from '../../src/feed/errors.js';
import type { LiveCall, LiveCalls } from '../../src/feed/live-calls.js';
import type { Call } from '../../src/grpc/transport/index.js';
import type { Frames, ReceivedFrames } from '../../src/wire/frames.js';
import { codec, failure } from '../support/client.js';
import { eventFrames } from '../support/frames.js';
import { RawClient } from '../support/raw-client.js';
import { outcome } from '../support/raw-outcome.js';
import { until, within } from '../support/wait.js';
import { serve } from '../transport/harness.js';

const SHUTTING_DOWN = 'the server is shutting down: reconnect and go on';

/** Sends one event, then waits for the signal. */
async function* idle(_request: unknown, call: Call): AsyncGenerator<Frames> {
  yield eventFrames({ id: 'first' });
  await new Promise((resolve) => call.signal.addEventListener('abort', resolve));
  throw call.signal.reason as Error;
}

/** Sends without end. */
async function* flood(): AsyncGenerator<Frames> {
  for (;;) {
    yield eventFrames({ id: 'x', body: 'x'.repeat(30_000) });
    await new Promise(setImmediate);
  }
}

/** Counts batches in `seen`, none of which is stored before the end. */
const uploadTo =
  (seen: { received: number }) => async (frames: AsyncIterable<ReceivedFrames>, call: Call) => {
    call.pending++;
    for await (const { pieces } of frames) seen.received += pieces.length;
    return { received: seen.received };
  };

/** An HTTP server as another door: a POST is an upload, which ends as its body does; a GET a watch. */
async function httpDoor(calls: LiveCalls): Promise<Door & { url: string }> {
  let refusal: FeedError | undefined;
  const answer = (response: ServerResponse, reason: Error | undefined): void => {
    response.end(reason instanceof FeedError ? reason.reason : 'stored');
  };
  const server = createServer((request, response) => {
    if (refusal) {
      answer(response, refusal);
      return;
    }
    const call: LiveCall = {
      method: `${request.method} ${request.url}`,
      peer: '',
      startedAt: performance.now(),
      receivedAt: performance.now(),
      endless: request.method === 'GET',
      isStream: true,
      notes: {},
      events: 0,
      bytes: 0,
      pending: 1, // until its body ends
      signal: new AbortController().signal,
      abort: (reason) => answer(response, reason),
    };
    calls.add(call);
    response.on('close', () => calls.delete(call));
    response.flushHeaders();
    request.on('end', () => call.endless || answer(response, undefined)).resume();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => server.closeAllConnections());
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    stopAccepting: (reason) => {
      refusal = reason;
      server.close();
    },
    closeUnread: () => server.closeAllConnections(),
  };
}

/** The text of an answer, whose headers are there when this resolves; `end` ends its request. */
async function open(url: string, method: 'GET' | 'POST') {
  const asked = send(url, { method });
  if (method === 'GET') asked.end();
  else asked.flushHeaders();
  const [response] = (await once(asked, 'response')) as [AsyncIterable<Buffer>];
  const read = async (): Promise<string> => {
    let text = '';
    for await (const chunk of response) text += String(chunk);
    return text;
  };
  return { text: read(), end: () => asked.end() };
}

test('lets uploads finish, then ends watches and chats with the reason', async () => {
  const seen = { received: 0 };
  const { client, drain, calls } = await serve({ watch: idle, upload: uploadTo(seen) });
  const watching = failure(client.Watch({ topic: 't' }));
  const answered = Promise.withResolvers<unknown>();
  const uploading = client.UploadEvents((error, result) => answered.resolve(error ?? result));
  uploading.write({ id: 'a' });
  await until(() => [...calls].length === 2 && seen.received === 1, 'open calls');
  let drained = false;
  const draining = drain(30_000).then(() => (drained = true));
  await sleep(200);
  expect(drained).toBe(false);
  uploading.end();
  expect(await answered.promise).toMatchObject({ received: 1 });
  expect(await watching).toMatchObject({ code: status.UNAVAILABLE, details: SHUTTING_DOWN });
  await draining;
});

test('takes no client for dead that it can no longer ask', async () => {
  const seen = { received: 0 };
  const { address, client, drain } = await serve(
    { watch: idle, upload: uploadTo(seen) },
    { keepalive: { time: 300, timeout: 2_000 } },
  );
  const raw = await RawClient.connect(address);
  const watching = raw
    .open('Watch')
    .drop()
    .send(codec.watchRequest.serialize({ topic: 't' }));
  watching.stream.end();
  client.UploadEvents(() => {}).write({ id: 'a' });
  await watching.headers;
  await until(() => seen.received === 1, 'an open upload');
  // The upload holds the drain for longer than a client may be silent. Node's client says nothing meanwhile.
  await within(drain(5_000), 'the drain');
  expect(outcome((await within(watching.trailers, 'the end of the watch')) ?? {})).toMatchObject({
    code: status.UNAVAILABLE,
    reason: 'DRAINING',
  });
  raw.close();
});

test('ends uploads that do not finish in time, then all others, and resets who does not read', async () => {
  const seen = { received: 0 };
  const { address, client, drain, ended } = await serve({ watch: flood, upload: uploadTo(seen) });
  const raw = await RawClient.connect(address);
  const stalled = raw.open('Watch').send(codec.watchRequest.serialize({ topic: 't' }));
  stalled.stream.end();
  const answered = Promise.withResolvers<unknown>();
  client.UploadEvents((error) => answered.resolve(error)).write({ id: 'a' });
  await until(
    () => seen.received === 1 && stalled.isFull,
    'an open upload, and a watch that nobody reads',
  );
  await within(drain(300), 'the drain');
  expect(await answered.promise).toMatchObject({ code: status.UNAVAILABLE });
  expect(ended).toHaveLength(2);
  // Not reset with CANCEL, which a client would take for its own doing: its connection is gone.
  await until(() => raw.session.destroyed, 'the end of the connection');
  raw.close();
});

test('takes no new calls', async () => {
  const { client, drain, address } = await serve({ watch: idle });
  const raw = await RawClient.connect(address);
  await drain(100);
  expect((await failure(client.Watch({ topic: 't' }))).code).toBe(status.UNAVAILABLE);
  raw.close();
});

test('refuses a call whose request comes late with the same reason', async () => {
  const { drain, address } = await serve({ watch: idle });
  const raw = await RawClient.connect(address);
  const call = raw.open('Watch').drop();
  await raw.pinged();
  const drained = drain(100);
  await sleep(0); // the drain's delay, of 0 ms
  call.send(codec.watchRequest.serialize({ topic: 't' })).stream.end();
  const trailers = await call.trailers;
  expect(trailers?.['grpc-status']).toBe(String(status.UNAVAILABLE));
  expect(trailers?.['grpc-message']).toContain('shutting%20down');
  await drained;
  raw.close();
});

test('a second door drains with the first: uploads of both finish before watches of either end', async () => {
  const { client, drain, calls } = await serve({ watch: idle });
  const door = await httpDoor(calls);
  const watching = failure(client.Watch({ topic: 't' }));
  const httpWatch = await open(door.url, 'GET');
  const httpUpload = await open(door.url, 'POST');
  await until(() => [...calls].length === 3, 'open calls');
  const ends: string[] = [];
  void watching.then(() => ends.push('watch'));
  void httpWatch.text.then(() => ends.push('HTTP watch'));
  const drained = drain(30_000, door);
  await sleep(200);
  expect(ends).toEqual([]);
  await expect(fetch(door.url)).rejects.toThrow(); // takes no new connections
  httpUpload.end();
  expect(await httpUpload.text).toBe('stored');
  expect(await httpWatch.text).toBe('DRAINING');
  expect(await watching).toMatchObject({ code: status.UNAVAILABLE, details: SHUTTING_DOWN });
  await drained;
});

test('ends an upload of a second door that does not finish in time', async () => {
  const { drain, calls } = await serve({});
  const door = await httpDoor(calls);
  const httpUpload = await open(door.url, 'POST');
  await within(drain(100, door), 'the drain');
  expect(await httpUpload.text).toBe('DRAINING');
});
