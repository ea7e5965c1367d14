import { constants } from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { Metadata, status } from '@grpc/grpc-js';
import { expect, onTestFinished, test } from 'vitest';
import { LINGER } from '../../src/grpc/transport/unread.js';
import { parseCursor } from '../../src/wire/cursor.js';
import { codec, errorInfo, upload } from '../support/client.js';
import { type RawCall, RawClient } from '../support/raw-client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually, until, within } from '../support/wait.js';
import { decodeChat, encodeChat, eventsIn, framed, unframed } from '../wire/events.js';
import { counted, NOTHING, type Observed } from './open-sets.js';
import { ServiceLog } from './service-log.js';

/** How long (milliseconds) waiting messages may still be sent after a bad message. */
const FLUSH_TIME = 2_000;
/** The client's receive window of a stream, in bytes. */
const WINDOW = 8_192;

async function start(settings: Record<string, string> = {}): Promise<Observed> {
  const service = await ServiceProcess.start({
    FEED_DATA_DIR: temporaryDirectory(),
    FEED_LOG_LEVEL: 'debug',
    FEED_LOG_FORMAT: 'json',
    ...settings,
  });
  return { service, log: new ServiceLog(service) };
}

const positionOf = (cursor: string): number => parseCursor(cursor)!.position;

/** Opens a call of a client that reads nothing yet, with this receive window. */
async function open({ service }: Observed, method: string, window = WINDOW): Promise<RawCall> {
  const raw = await RawClient.connect(service.grpcAddress, { initialWindowSize: window });
  onTestFinished(() => raw.close());
  return raw.open(method);
}

/** Reads chunks, with a pause (milliseconds) after each. */
function readSlowly({ stream }: RawCall, pause: number): Buffer[] {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    stream.pause();
    setTimeout(() => stream.resume(), pause);
  });
  return chunks;
}

/** Opens a chat that has joined a room, and whose client's window is used up by an answer. */
async function blockedChat(observed: Observed): Promise<RawCall> {
  const chat = await open(observed, 'Chat');
  chat.send(encodeChat({ room: 'lobby' })).send(encodeChat({ text: 'x'.repeat(64 * 1024) }));
  await until(() => chat.isFull, 'a window that is used up');
  return chat;
}

test.each([
  { what: 'bytes that are no message', bad: Buffer.from([0xff]), reason: 'MESSAGE_INVALID' },
  { what: 'a bad room name', bad: encodeChat({ room: 'a b' }), reason: 'TOPIC_INVALID' },
])(
  'a chat that nobody reads, and that sends $what, leaves its room at once, is over after 2 s, and is reset after 2 s more',
  async ({ bad, reason }) => {
    const observed = await start();
    const chat = await blockedChat(observed);
    await counted(observed, { ...NOTHING, chats: 1, members: 1 });
    chat.stream.write(framed(encodeChat({ text: 'waits for the answer before it' }), bad));
    await within(chat.closed, 'a reset');
    expect(chat.stream.rstCode).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    const reset = Date.now();
    // The service logs once a second what is open, so each state that lasted for 2 s was logged before the reset.
    await counted(observed, NOTHING);
    const last = observed.log.openLines.slice(-3);
    expect(last.map(({ counts }) => counts)).toEqual([
      { ...NOTHING, chats: 1, members: 1 },
      { ...NOTHING, chats: 1 },
      NOTHING,
    ]);
    expect(Date.parse(last[2].time)).toBeLessThanOrEqual(reset);
    expect(observed.log.ends).toMatchObject([{ status: 'INVALID_ARGUMENT', reason }]);
  },
);

test('a half-closed chat whose client reads slowly gets all messages that were waiting, then OK', async () => {
  const observed = await start();
  const chat = await blockedChat(observed);
  const sender = await open(observed, 'Chat');
  const texts = Array.from({ length: 200 }, (_, i) => String(i).padEnd(1_000, '.'));
  for (const text of texts) sender.send(encodeChat({ room: 'lobby', text }));
  sender.send(encodeChat({ text: 'answered after all messages to the room' }));
  await new Promise((resolve) => sender.stream.once('data', resolve));

  chat.stream.end();
  await counted(observed, { ...NOTHING, chats: 2, members: 1 });
  sender.send(encodeChat({ room: 'lobby', text: 'too late' }));
  const begun = performance.now();
  const chunks = readSlowly(chat, 250);
  expect((await chat.trailers)?.['grpc-status']).toBe('0');
  await chat.closed; // by now, all is read
  // This is longer than a stream waits for a client that does not read.
  expect(performance.now() - begun).toBeGreaterThan(FLUSH_TIME + LINGER);
  const [echo, ...received] = unframed(Buffer.concat(chunks)).map(decodeChat);
  expect(echo.from).toBe('server');
  expect(received.map(({ text }) => text)).toEqual(texts);
});

test('a half-closed chat whose client reads late gets the few messages that were waiting, then OK', async () => {
  const observed = await start();
  const first = await open(observed, 'Chat'); // a process learns from its first answer how to send directly
  first.send(encodeChat({ text: 'hello' }));
  await new Promise((resolve) => first.stream.once('data', resolve));
  const chat = await open(observed, 'Chat', 1_000);
  const texts = Array.from({ length: 50 }, (_, i) => String(i).padEnd(100, '.'));
  chat.stream.end(framed(...texts.map((text) => encodeChat({ text }))));
  await until(() => chat.isFull, 'a window that is used up');
  await sleep(LINGER + 1_000); // longer than it takes to reset a stream of which nothing is read
  const chunks = readSlowly(chat, 0);
  expect((await chat.trailers)?.['grpc-status']).toBe('0');
  await chat.closed;
  const answers = unframed(Buffer.concat(chunks)).map(decodeChat);
  expect(answers.map(({ text }) => text)).toEqual(texts.map((text) => `echo: ${text}`));
});

test('a watch in full flow that retention overtakes is told so, without a gap before, and released', async () => {
  const observed = await start({ FEED_RETENTION_MAX_BYTES: '1MiB' });
  const client = observed.service.connect();
  let next = 0;
  const more = (): Promise<unknown> =>
    upload(
      client,
      Array.from({ length: 64 }, () => ({
        topic: 'orders',
        id: String(next++),
        body: 'x'.repeat(2 ** 16),
      })),
    );
  await more();
  const idle = await open(observed, 'Watch');
  idle.stream.end(framed(codec.watchRequest.serialize({ topic: 'quiet' })));
  const watch = await open(observed, 'Watch');
  watch.stream.end(framed(codec.watchRequest.serialize({ topic: 'orders', position: 1 })));
  const chunks = readSlowly(watch, 5);
  const end: { trailers?: Awaited<typeof watch.trailers> } = {};
  void watch.trailers.then((trailers) => (end.trailers = trailers));
  for (let i = 0; i < 64 && !end.trailers; i++) await more();

  await eventually(() => expect(end.trailers?.['grpc-status']).toBe(String(status.OUT_OF_RANGE)));
  await watch.closed; // by now, all is read
  const { reason, metadata } = errorInfo(Metadata.fromHttp2Headers(end.trailers!))!;
  expect(reason).toBe('CURSOR_EXPIRED');
  const seen = eventsIn(Buffer.concat(chunks));
  const ids = seen.map(({ id }) => Number(id));
  expect(ids.length).toBeGreaterThan(0);
  expect(ids).toEqual(ids.map((_, i) => ids[0] + i));
  expect(positionOf(metadata.earliest)).toBeGreaterThan(positionOf(seen.at(-1)!.cursor));
  await counted(observed, { ...NOTHING, watches: 1, subscriptions: 1 }); // the idle one
});
