import { describe, expect, test } from 'vitest';
import { frame } from '../../src/wire/frames.js';
import { connect, upload } from '../support/client.js';
import { runService } from '../support/service.js';
import { until } from '../support/wait.js';
import { bytesField } from '../wire/events.js';
import { withBystander } from './bystander.js';
import {
  callHeaders,
  CONTINUATION,
  DATA,
  END_HEADERS,
  END_STREAM,
  GOAWAY,
  h2,
  header,
  HEADERS,
  PING,
  PREFACE,
  RawSocket,
  RST_STREAM,
  SETTINGS,
  WINDOW_UPDATE,
} from './raw-socket.js';

const shared = withBystander();

const UPLOAD = '/feed.v1.FeedService/UploadEvents';
const WATCH = '/feed.v1.FeedService/Watch';
const CHAT = '/feed.v1.FeedService/Chat';
const EVENT = frame(bytesField(2, 't'));
const NO_CODE = '\0\0\0\0';
const CANCEL = '\0\0\0\x08';
const JSON_TYPE = 'application/json';

/** Returns the number of the client's i-th stream: clients' streams have odd numbers. */
const stream = (i: number): number => 1 + 2 * i;

const open = (i: number, path = UPLOAD, type?: string): Buffer =>
  h2(HEADERS, END_HEADERS, stream(i), callHeaders(path, type));

async function connected(): Promise<RawSocket> {
  const socket = await RawSocket.connect(shared.address);
  await socket.send(PREFACE, h2(SETTINGS, 0, 0));
  return socket;
}

/** A test's name, what it sends, and whether the server leaves the connection open after that. */
type Row = [string, (socket: RawSocket) => Promise<void>, 'open' | 'closed'];

const cancelled =
  (path: string, type?: string, code = CANCEL) =>
  (socket: RawSocket): Promise<void> =>
    socket.flood(3_000, (i) =>
      Buffer.concat([open(i, path, type), h2(RST_STREAM, 0, stream(i), code)]),
    );

describe('the server leaves a connection open, or closes it, after a flood', () => {
  test.each<Row>([
    // Thousands of watches may share a connection and end at the same moment, so some resets alone are no abuse.
    [
      'of 10,000 watches that are cancelled at once',
      async (socket) => {
        await socket.flood(10_000, (i) => open(i, WATCH));
        await socket.flood(10_000, (i) => h2(RST_STREAM, 0, stream(i), CANCEL));
      },
      'open',
    ],
    ['of cancelled uploads', cancelled(UPLOAD), 'open'],
    ['of cancelled chats', cancelled(CHAT), 'open'],
    ['of cancelled watches', cancelled(WATCH), 'open'],
    ['of cancelled calls of an unknown method', cancelled('/x'), 'open'],
    ['of cancelled calls that are not of gRPC', cancelled(UPLOAD, JSON_TYPE), 'open'],
    ['of uploads that are reset with NO_ERROR', cancelled(UPLOAD, undefined, NO_CODE), 'open'],
    [
      'of uploads that end, and are reset at once',
      (socket) =>
        socket.flood(3_000, (i) =>
          Buffer.concat([
            open(i),
            h2(DATA, END_STREAM, stream(i), EVENT),
            h2(RST_STREAM, 0, stream(i), CANCEL),
          ]),
        ),
      'open',
    ],
    ['of uploads that send nothing', (socket) => socket.flood(2_000, (i) => open(i)), 'open'],
    ['of chats that send nothing', (socket) => socket.flood(2_000, (i) => open(i, CHAT)), 'open'],
    [
      'of watches that send nothing',
      (socket) => socket.flood(2_000, (i) => open(i, WATCH)),
      'open',
    ],
    ['of pings', (socket) => socket.flood(100_000, () => h2(PING, 0, 0, 'harmless')), 'closed'],
    [
      'of pings whose answers are not read',
      (socket) => {
        socket.socket.pause();
        const sending = socket.flood(50_000, () => h2(PING, 0, 0, 'harmless'));
        socket.socket.resume();
        return sending;
      },
      'closed',
    ],
    ['of settings', (socket) => socket.flood(100_000, () => h2(SETTINGS, 0, 0)), 'closed'],
    [
      'of settings of many values',
      (socket) => socket.flood(2_000, () => h2(SETTINGS, 0, 0, '\0\x03\0\0\0\x64'.repeat(100))),
      'closed',
    ],
    [
      'of empty DATA frames',
      async (socket) => {
        await socket.send(open(0));
        await socket.flood(100_000, () => h2(DATA, 0, 1));
      },
      'closed',
    ],
    [
      'of empty CONTINUATION frames',
      async (socket) => {
        await socket.send(h2(HEADERS, 0, 1, callHeaders(UPLOAD)));
        await socket.flood(100_000, () => h2(CONTINUATION, 0, 1));
      },
      'closed',
    ],
    [
      'of CONTINUATION frames with headers',
      async (socket) => {
        await socket.send(h2(HEADERS, 0, 1, callHeaders(UPLOAD)));
        await socket.flood(20_000, (i) => h2(CONTINUATION, 0, 1, header(`x-${i}`, 'a'.repeat(90))));
      },
      'closed',
    ],
  ])('%s', async (_what, flood, state) => {
    const socket = await connected();
    await flood(socket);
    expect(await socket.state()).toBe(state);
    socket.socket.destroy();
  });

  test('of 1-byte DATA frames, and serves its upload', async () => {
    const socket = await connected();
    const events = Buffer.concat(Array.from({ length: 2_000 }, () => EVENT));
    await socket.send(open(0));
    await socket.flood(events.length, (i) =>
      h2(DATA, i === events.length - 1 ? END_STREAM : 0, 1, events.subarray(i, i + 1)),
    );
    const answer = (): number[] =>
      socket.frames.filter((one) => one.stream === 1).map(({ type }) => type);
    await until(() => answer().length === 3, 'the answer');
    expect(answer()).toEqual([HEADERS, DATA, HEADERS]); // the DATA is the result; an error would have none
  });
});

describe('a connection', () => {
  const headers = (bytes: Buffer) => h2(HEADERS, END_HEADERS | END_STREAM, 1, bytes);

  test.each<[string, Buffer, 'open' | 'closed']>([
    ['with DATA of no stream', h2(DATA, 0, 5, 'hello'), 'closed'],
    ['with a stream of an even number', h2(HEADERS, END_HEADERS, 2, callHeaders(UPLOAD)), 'closed'],
    [
      'with a frame over the limit',
      Buffer.concat([open(0), h2(DATA, 0, 1, Buffer.alloc(1 << 20))]),
      'closed',
    ],
    ['with a window over 2^31', h2(WINDOW_UPDATE, 0, 0, '\x7f\xff\xff\xff'), 'closed'],
    ['with headers that are no HPACK', headers(Buffer.alloc(50, 0xff)), 'closed'],
    ['with a line break in a path', headers(callHeaders('/a\r\nb')), 'open'],
    ['with bytes over 127 in a path', headers(callHeaders('/\xe9\x80\xff')), 'open'],
    [
      'with a header of an upper-case name',
      headers(Buffer.concat([callHeaders(UPLOAD), header('X-Y', 'z')])),
      'open',
    ],
    [
      'with a -bin header of any bytes',
      headers(Buffer.concat([callHeaders(UPLOAD), header('x-bin', '\xff,,!')])),
      'open',
    ],
    [
      'with two content types',
      headers(Buffer.concat([callHeaders(UPLOAD), header('content-type', 'x')])),
      'open',
    ],
    ['with the HTTP method CONNECT', headers(callHeaders(UPLOAD, undefined, 'CONNECT')), 'open'],
    ['with an unknown HTTP method', headers(callHeaders(UPLOAD, undefined, 'X')), 'open'],
    ['with trailers of the client', Buffer.concat([open(0), headers(header('x', 'y'))]), 'open'],
    ['with a frame of an unknown type', h2(0x77, 0xff, 1, 'hello'), 'open'],
    ['that says GOAWAY', Buffer.concat([open(0), h2(GOAWAY, 0, 0, '\0\0\0\0\0\0\0\0')]), 'open'],
  ])('%s stays open or is closed, and harms nobody else', async (_what, bytes, state) => {
    const socket = await connected();
    await socket.send(bytes);
    expect(await socket.state()).toBe(state);
    socket.socket.destroy();
  });

  test.each<[string, Buffer]>([
    ['of HTTP/1.1', Buffer.from('GET /readyz HTTP/1.1\r\nHost: feed\r\n\r\n')],
    ['of TLS', Buffer.from('16030100c8010000c40303'.padEnd(410, '5a'), 'hex')],
    ['of random bytes', Buffer.from('5bd1e9952f80a76c4d3e'.repeat(50), 'hex')],
    ["of HTTP/2's preface and then garbage", Buffer.concat([PREFACE, Buffer.alloc(500, 0xa5)])],
  ])('%s to the gRPC port is closed', async (_what, bytes) => {
    const socket = await RawSocket.connect(shared.address);
    await socket.send(bytes);
    expect(await socket.state()).toBe('closed');
  });

  test.each([
    ['nothing', Buffer.alloc(0)],
    ["half of HTTP/2's preface", PREFACE.subarray(0, 10)],
    ["HTTP/2's preface alone", PREFACE],
  ])('that sends %s and waits stays open', async (_what, bytes) => {
    const sockets = await Promise.all(
      Array.from({ length: 50 }, () => RawSocket.connect(shared.address)),
    );
    for (const socket of sockets) await socket.send(bytes);
    await shared.bystander.check();
    expect(sockets.filter(({ isClosed }) => isClosed)).toEqual([]);
    for (const { socket } of sockets) socket.destroy();
  });

  test('that cancels more calls than FEED_RESET_BURST is ended, and no other', async () => {
    const service = await runService({ FEED_RESET_BURST: '1500' });
    const [honest, abuser] = [
      await RawSocket.connect(service.grpcAddress),
      await RawSocket.connect(service.grpcAddress),
    ];
    for (const socket of [honest, abuser]) await socket.send(PREFACE, h2(SETTINGS, 0, 0));
    await cancelled(WATCH)(abuser);
    await honest.flood(1_000, (i) => open(i, WATCH));
    await honest.flood(1_000, (i) => h2(RST_STREAM, 0, stream(i), CANCEL));
    expect(await abuser.state()).toBe('closed');
    expect(await honest.state()).toBe('open');
    const { result } = await upload(connect(service.grpcAddress), [
      { topic: 't', id: 'a', body: '' },
    ]);
    expect(result?.received).toBe(1);
    honest.socket.destroy();
  });

  test('that never says a whole request is closed in time, and others are served', async () => {
    const service = await runService({ FEED_KEEPALIVE_TIME: '1s', FEED_KEEPALIVE_TIMEOUT: '1s' });
    const waits = [
      Buffer.alloc(0),
      PREFACE.subarray(0, 10),
      PREFACE,
      Buffer.concat([PREFACE, h2(SETTINGS, 0, 0), h2(HEADERS, 0, 1, callHeaders(UPLOAD))]),
      Buffer.concat([PREFACE, h2(SETTINGS, 0, 0), open(0).subarray(0, 20)]),
    ];
    const sockets = await Promise.all(
      Array.from({ length: 100 }, () => RawSocket.connect(service.grpcAddress)),
    );
    for (const [i, socket] of sockets.entries()) await socket.send(waits[i % waits.length]);
    const { result } = await upload(connect(service.grpcAddress), [{ topic: 't', id: 'a' }]);
    expect(result?.received).toBe(1);
    await until(() => sockets.every(({ isClosed }) => isClosed), 'the end of all connections');
  });

  test.each<[string, Buffer]>([
    ['of HTTP/2', Buffer.concat([PREFACE, h2(SETTINGS, 0, 0), open(0)])],
    ['of TLS', Buffer.from('16030100c8010000c40303'.padEnd(410, '5a'), 'hex')],
    ['of random bytes', Buffer.from('5bd1e9952f80a76c4d3e'.repeat(50), 'hex')],
    ['of an endless header', Buffer.from(`GET / HTTP/1.1\r\nx: ${'a'.repeat(100_000)}`)],
  ])('%s to the HTTP port is refused', async (_what, bytes) => {
    const socket = await RawSocket.connect(shared.bystander.service.httpAddress);
    await socket.send(bytes);
    expect(await socket.state()).toBe('closed');
    // Node resets a connection of which it has not read all bytes, and its answer may be lost by that.
    expect(socket.received.toString('latin1')).toMatch(/^(HTTP\/1\.1 4(00|31) |$)/);
  });
});
