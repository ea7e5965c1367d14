import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { Pings } from '../../src/grpc/transport/pings.js';
import {
  callHeaders,
  DATA,
  GOAWAY,
  END_STREAM,
  h2,
  headerFrames,
  HEADERS,
  PING,
  PREFACE,
  RawSocket,
  SETTINGS,
} from '../faults/raw-socket.js';
import { frame, type ReceivedFrames } from '../../src/wire/frames.js';
import { standStill, until } from '../support/wait.js';
import { serve } from './harness.js';

/** A client that is silent for `time` milliseconds gets a PING, and one that is silent for `timeout` more is dead. */
const KEEPALIVE = { time: 400, timeout: 300 };
const ACK = 1;

/** The client is in the server's process, which may not stand still for so long by itself. */
const BUSY = { ...KEEPALIVE, timeout: 2_000 };

/** Connects a client that sends nothing by itself, and calls `onPing` with the answer to each PING. */
async function silentClient(
  onPing: (client: RawSocket, answer: Buffer) => void,
  keepalive = KEEPALIVE,
) {
  const { address } = await serve({}, { keepalive });
  const client = await RawSocket.connect(address);
  const asked = () => client.frames.filter(({ type, flags }) => type === PING && flags !== ACK);
  let pings = 0;
  client.socket.on('data', () => {
    for (const { payload } of asked().slice(pings)) {
      pings++;
      onPing(client, h2(PING, ACK, 0, payload));
    }
  });
  await client.send(PREFACE, h2(SETTINGS, 0, 0));
  return { client, pings: () => pings };
}

test('a client whose answer came while the server stood still is not taken for dead', async () => {
  const { client, pings } = await silentClient(({ socket }, answer) => {
    socket.write(answer);
    // The answer has come, and when the server gets to read it, its time is over.
    standStill(BUSY.timeout + 500);
  }, BUSY);
  await until(() => pings() >= 3 || client.isClosed, 'three PINGs');
  expect(await client.state()).toBe('open');
});

test('a client whose PING could not leave while the server stood still is not taken for dead', async () => {
  const { ask } = Pings.prototype as { ask: (this: Pings, callback: () => void) => void };
  const spy = vi.spyOn(Pings.prototype, 'ask').mockImplementation(function (this: Pings, callback) {
    ask.call(this, callback);
    // Node writes the PING later. The server looks at the client again before that, because the time for it has come.
    standStill(BUSY.timeout + 500);
  });
  onTestFinished(() => spy.mockRestore());
  const answers = ({ socket }: RawSocket, answer: Buffer): unknown => socket.write(answer);
  const { client, pings } = await silentClient(answers, BUSY);
  await until(() => pings() >= 3 || client.isClosed, 'three PINGs');
  expect(await client.state()).toBe('open');
});

test('a client that answers no PING is disconnected after the first', async () => {
  const { client, pings } = await silentClient(() => {});
  await until(() => client.isClosed, 'the end of the connection');
  expect(pings()).toBe(1);
});

async function allOf(frames: AsyncIterable<ReceivedFrames>): Promise<void> {
  const batches = frames[Symbol.asyncIterator]();
  while (!(await batches.next()).done);
}

const BYE = h2(GOAWAY, 0, 0, Buffer.alloc(8));
/** A connection error of HTTP/2: after the client's GOAWAY, node neither closes the connection nor reads it any more. */
const BROKEN = h2(PING, 0, 0, 'too short'.slice(0, 3));

test.each([
  ['an upload', 'UploadEvents', 0],
  ['an upload that waits for its result', 'UploadEvents', END_STREAM],
  ['a request that is not whole', 'Watch', 0],
])(
  'a client that says goodbye and breaks its connection is gone, with %s',
  async (_, method, end) => {
    const upload = async (frames: AsyncIterable<ReceivedFrames>): Promise<unknown> => {
      await allOf(frames);
      return {};
    };
    const { address, connections, ended } = await serve({ upload }, { keepalive: KEEPALIVE });
    const client = await RawSocket.connect(address);
    const call = headerFrames(1, callHeaders(`/feed.v1.FeedService/${method}`));
    await client.send(
      PREFACE,
      h2(SETTINGS, 0, 0),
      call,
      h2(DATA, end, 1, frame(Buffer.alloc(1000)).subarray(0, end ? 1005 : 500)),
    );
    await until(() => connections.size === 1, 'the connection');
    await client.send(BYE);
    await client.send(BROKEN);
    client.socket.destroy();
    await until(() => connections.size === 0, 'the end of the connection');
    if (method === 'UploadEvents') await until(() => ended.length === 1, 'the end of the upload');
  },
);

/** The whole request of an upload, after its headers. */
const ALL = h2(DATA, END_STREAM, 1, frame(Buffer.alloc(0)));

/** A client that begins an upload and sends `frames` in one go. The handler reads all of the upload, and then calls `answer`. */
async function uploading(answer: () => unknown, ...frames: Buffer[]) {
  const upload = async (received: AsyncIterable<ReceivedFrames>): Promise<unknown> => {
    await allOf(received);
    return answer();
  };
  const service = await serve({ upload }, { keepalive: KEEPALIVE });
  const client = await RawSocket.connect(service.address);
  const call = headerFrames(1, callHeaders('/feed.v1.FeedService/UploadEvents'));
  await client.send(PREFACE, h2(SETTINGS, 0, 0), call, ...frames);
  return { ...service, client };
}

test('a client that says goodbye and breaks its connection in one go is gone, though its upload was refused', async () => {
  const refuse = (): never => {
    throw new Error('refused');
  };
  // DATA on a stream that is idle is an error of the connection.
  const idle = h2(DATA, 0, 9, 'x');
  const { client, connections, ended, calls } = await uploading(refuse, BYE, ALL, idle);
  await until(() => ended.length === 1, 'the end of the upload');
  client.socket.destroy();
  await until(() => connections.size === 0 && [...calls].length === 0, 'that nothing is left');
});

test('a client that says goodbye and breaks its connection is gone, though the result of its upload has no room', async () => {
  const result = { lastCursor: 'x'.repeat(100_000) };
  const { client, connections, calls } = await uploading(() => result, ALL);
  const received = (): number =>
    client.frames
      .filter(({ type }) => type === DATA)
      .reduce((sum, { payload }) => sum + payload.length, 0);
  await until(() => received() === 65_535, 'the part of the result for which there is room');
  await client.send(BYE);
  await client.send(BROKEN);
  client.socket.destroy();
  // A result whose connection has no room may wait for a minute (unread.ts).
  await until(() => connections.size === 0 && [...calls].length === 0, 'that nothing is left');
});

test('a client that says goodbye may be silent while its upload is stored, however long that takes', async () => {
  const stored = Promise.withResolvers<{ received: number }>();
  const { client } = await uploading(() => stored.promise, ALL, BYE);
  await sleep(3 * (KEEPALIVE.time + KEEPALIVE.timeout));
  expect(client.isClosed).toBe(false);
  stored.resolve({ received: 1 });
  const isAnswered = (): boolean =>
    client.frames.some(({ type, flags }) => type === HEADERS && (flags & END_STREAM) !== 0);
  await until(isAnswered, 'the result');
});
