import { constants } from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { describe, expect, test } from 'vitest';
import { frame, type ReceivedFrames } from '../../src/wire/frames.js';
import { codec } from '../support/client.js';
import { idsIn } from '../support/frames.js';
import { RawClient } from '../support/raw-client.js';
import { until } from '../support/wait.js';
import { serve } from './harness.js';

const KIB = 1024;
const LIMIT = 256 * KIB;
const INBOUND = { connection: LIMIT, total: 64 * LIMIT };

const message = (bytes: number) =>
  frame(codec.event.serialize({ id: 'x', body: 'x'.repeat(bytes) }));

/** Makes an upload handler that takes no message until `state.open()` is called, and then takes and counts all. */
function gate() {
  const opened = Promise.withResolvers<void>();
  const state = { received: 0, open: () => opened.resolve() };
  const upload = async (frames: AsyncIterable<ReceivedFrames>) => {
    await opened.promise;
    let received = 0;
    for await (const batch of frames) {
      received += idsIn(batch).length;
      state.received += idsIn(batch).length;
    }
    return { received };
  };
  return { state, upload };
}

/** Returns the bytes that the client has written to its socket: node may still buffer a little. */
const sentBy = (raw: RawClient): number => raw.session.socket.bytesWritten;

describe('the messages of one connection that handlers have not taken', () => {
  test.each([
    ['large', 4, 400],
    ['small', 20, 90],
  ])(
    'are bounded, however many streams there are, and more come once they are taken: %s messages',
    async (_, kib, count) => {
      const streams = 20;
      const { state, upload } = gate();
      const { address } = await serve({ upload }, { inbound: INBOUND });
      const raw = await RawClient.connect(address);
      const bytes = message(kib * KIB);
      const calls = Array.from({ length: streams }, () => raw.open('UploadEvents').drop());
      for (let i = 0; i < count; i++) for (const call of calls) call.stream.write(bytes);
      for (const call of calls) call.stream.end();
      await raw.sentAll();
      // At most the bound and one frame of each stream are sent. By the 1 MiB window of each stream alone, all would be.
      expect(sentBy(raw)).toBeLessThan(LIMIT + streams * (16 * KIB + 1_000));
      state.open();
      await until(() => state.received === streams * count, 'all messages', 30_000);
      for (const call of calls) expect((await call.trailers)?.['grpc-status']).toBe('0');
      // The connection's window is restored: as much can be sent again.
      const again = raw.open('UploadEvents').drop();
      for (let i = 0; i < count; i++) again.stream.write(bytes);
      again.stream.end();
      expect((await again.trailers)?.['grpc-status']).toBe('0');
      raw.close();
    },
  );

  test('are followed by the rest once they are taken, also after GOAWAY', async () => {
    const [streams, count] = [10, 30];
    let received = 0;
    let turn = Promise.resolve();
    const upload = async (frames: AsyncIterable<ReceivedFrames>) => {
      for await (const batch of frames) {
        received += idsIn(batch).length;
        await (turn = turn.then(() => sleep(20)));
      }
      return {};
    };
    // No stream may send so much that the server stops reading it: going on with that would send what waits to be sent.
    const inbound = { ...INBOUND, connection: 128 * KIB };
    const { address } = await serve({ upload }, { inbound });
    const raw = await RawClient.connect(address);
    const calls = Array.from({ length: streams }, () => raw.open('UploadEvents').drop());
    for (let i = 0; i < count; i++) for (const call of calls) call.stream.write(message(6 * KIB));
    for (const call of calls) call.stream.end();
    await raw.pinged();
    // Node's clients answer GOAWAY with GOAWAY, and so does its server.
    raw.session.goaway();
    await until(() => received === streams * count, 'all messages');
    for (const call of calls) expect((await call.trailers)?.['grpc-status']).toBe('0');
    raw.close();
  });

  test('do not keep the server from reading the rest of messages that have begun', async () => {
    const { state, upload } = gate();
    state.open();
    const { address } = await serve({ upload }, { inbound: INBOUND });
    const raw = await RawClient.connect(address);
    const calls = Array.from({ length: 20 }, () => raw.open('UploadEvents').drop());
    const bytes = message(100 * KIB);
    const half = bytes.length / 2;
    for (const { stream } of calls) stream.write(bytes.subarray(0, half));
    await raw.sentAll();
    for (const { stream } of calls) stream.end(bytes.subarray(half));
    for (const call of calls) expect((await call.trailers)?.['grpc-status']).toBe('0');
    expect(state.received).toBe(20);
    raw.close();
  });
});

describe('a connection on which nothing can move', () => {
  /** Answers each message with twice its bytes, and takes the next message once the client has taken the answer. */
  async function* chat(frames: AsyncIterable<ReceivedFrames>) {
    for await (const { pieces } of frames)
      for (const piece of pieces) yield { bytes: Buffer.concat([piece, piece]), count: 2 };
  }

  test('is ended with a reason if its client does not read, and not if it waits for a handler', async () => {
    const { state, upload } = gate();
    async function* watch() {
      for (;;) yield { bytes: message(30 * KIB), count: 1 };
    }
    const { address, ended } = await serve(
      { chat, upload, watch },
      { inbound: INBOUND, keepalive: { time: 1_500, timeout: 1_000 } },
    );
    const waiting = await RawClient.connect(address);
    // That a client does not read this watch is not why its messages wait.
    waiting.open('Watch').stream.end(frame(codec.watchRequest.serialize({ topic: 't' })));
    const uploads = Array.from({ length: 20 }, () => waiting.open('UploadEvents').drop());
    for (const { stream } of uploads) for (let i = 0; i < 10; i++) stream.write(message(8 * KIB));
    await waiting.sentAll();

    const unread = await RawClient.connect(address);
    let farewell = '';
    unread.session.on('goaway', (code, _last, data?: Buffer) => {
      if (data) farewell = `${code} ${data.toString()}`;
    });
    const closed = new Promise((resolve) => unread.session.once('close', resolve));
    const calls = Array.from({ length: 20 }, () => unread.open('Chat'));
    for (const { stream } of calls) for (let i = 0; i < 20; i++) stream.write(message(30 * KIB));
    await Promise.all(calls.map((call) => call.closed));
    expect(new Set(calls.map(({ stream }) => stream.rstCode))).toEqual(
      new Set([constants.NGHTTP2_ENHANCE_YOUR_CALM]),
    );
    await closed;
    expect(farewell).toMatch(
      /^11 nothing has moved on this connection for 2\.5 s: .*FEED_SESSION_WINDOW/,
    );
    await until(() => ended.length === calls.length, 'the ends of the calls');
    for (const { code, details } of ended) {
      expect(code).toBe(status.RESOURCE_EXHAUSTED);
      expect(details).toMatch(/^nothing has moved on this connection/);
    }

    for (const { stream } of uploads) stream.end();
    state.open();
    for (const call of uploads) expect((await call.trailers)?.['grpc-status']).toBe('0');
    expect(state.received).toBe(200);
    waiting.close();
  });
});

describe('the messages of all connections that handlers have not taken', () => {
  test.each([
    ["can't be decompressed", 1, message(20 * KIB).length - 5],
    ['is too long', 0, 2 * 1024 * KIB],
  ])('are not those after one that %s, nor that one', async (_, flag, length) => {
    const { address, ended } = await serve(
      {
        async *chat(frames) {
          for await (const { pieces } of frames) yield { bytes: pieces[0] };
        },
      },
      { inbound: { connection: 64 * LIMIT, total: LIMIT } },
    );
    const raw = await RawClient.connect(address);
    const bytes = Buffer.concat(Array<Buffer>(4).fill(message(20 * KIB)));
    bytes[0] = flag;
    bytes.writeUInt32BE(length, 1);
    for (let i = 0; i < 20; i++) {
      const call = raw.open('Chat', { 'grpc-encoding': 'gzip' }).drop();
      call.stream.write(bytes);
      expect((await call.trailers)?.['grpc-status']).toBe(String(status.INTERNAL));
    }
    const call = raw.open('Chat').drop();
    call.stream.end(message(KIB));
    expect((await call.trailers)?.['grpc-status']).toBe('0');
    expect(ended.filter(({ code }) => code === status.RESOURCE_EXHAUSTED)).toEqual([]);
    raw.close();
  });

  test('are bounded: the connection that holds most is ended with a reason, the others go on', async () => {
    const { state, upload } = gate();
    const { address, ended } = await serve(
      { upload },
      { inbound: { connection: LIMIT, total: LIMIT } },
    );
    const small = await RawClient.connect(address);
    const kept = small.open('UploadEvents').drop();
    kept.stream.write(message(16 * KIB));
    await small.sentAll();
    const large = await Promise.all(Array.from({ length: 4 }, () => RawClient.connect(address)));
    const farewells: string[] = [];
    for (const { session } of large)
      session.on('goaway', (code, _last, data?: Buffer) => {
        if (data) farewells.push(`${code} ${data.toString()}`);
      });
    const calls = large.map((raw) => raw.open('UploadEvents').drop());
    for (const { stream } of calls) for (let i = 0; i < 10; i++) stream.write(message(16 * KIB));
    // Each of four connections sends 160 KiB, and only one of them fits into the total beside the small one.
    await until(() => farewells.length === 3, 'the ends of three connections');
    for (const farewell of farewells)
      expect(farewell).toMatch(/^11 this connection holds most \(\d+ bytes\).*FEED_RECEIVE_BYTES/);

    state.open();
    await until(() => ended.length === 3, 'the ends of their calls');
    expect(ended.map(({ code }) => code)).toEqual(Array(3).fill(status.RESOURCE_EXHAUSTED));
    kept.stream.end();
    expect((await kept.trailers)?.['grpc-status']).toBe('0');
    const left = calls.find(({ stream }) => !stream.closed)!;
    left.stream.end();
    expect((await left.trailers)?.['grpc-status']).toBe('0');
    expect(state.received).toBe(11);
    for (const raw of [small, ...large]) raw.close();
  });
});
