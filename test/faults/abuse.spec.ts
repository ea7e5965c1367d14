import { describe, expect, test } from 'vitest';
import { frame } from '../../src/wire/frames.js';
import { codec, connect, take, upload } from '../support/client.js';
import { randomOf } from '../fuzz/mutate.js';
import { until } from '../support/wait.js';
import { encodeChat, encodeEvent } from '../wire/events.js';
import { answerOf, ask, askAll, GOOD, rawClient, SERVED } from './answer.js';
import { withBystander } from './bystander.js';
import {
  callHeaders,
  h2,
  header,
  headerFrames,
  PREFACE,
  RawSocket,
  RST_STREAM,
  SETTINGS,
} from './raw-socket.js';

// Floods of frames, connections that say nothing, bombs and resets are in bad-input-*.spec.ts.
const shared = withBystander();

const KIB = 1024;
const MIB = 1024 * KIB;

describe('headers', () => {
  const ENHANCE_YOUR_CALM = 11;
  const UPLOAD = callHeaders('/feed.v1.FeedService/UploadEvents');
  // This client does not acknowledge the settings, with which the server says what it takes.
  const fields = (count: number, bytes: number): Buffer[] =>
    Array.from({ length: count }, (_, i) => header(`x-${i}`, 'a'.repeat(bytes)));

  /** Sends a call's headers. Returns whether its connection is open then, and the code with which the call was reset. */
  async function sendAfter(call: Buffer, ...parts: Buffer[]) {
    const socket = await RawSocket.connect(shared.address);
    await socket.send(PREFACE, h2(SETTINGS, 0, 0));
    await socket.send(headerFrames(1, Buffer.concat([call, ...parts])));
    const state = await socket.state();
    // The answer to the PING overtakes a reset.
    const isAnswered = () => socket.frames.some(({ stream }) => stream === 1);
    await until(() => socket.isClosed || isAnswered(), 'an answer to the call');
    const reset = socket.frames.find(({ type, stream }) => type === RST_STREAM && stream === 1);
    socket.socket.destroy();
    return { state, reset: reset?.payload.readUInt32BE() };
  }

  const send = (...parts: Buffer[]) => sendAfter(UPLOAD, ...parts);

  test('of 50 KiB in all are taken', async () => {
    expect(await send(...fields(5, 10 * KIB))).toEqual({ state: 'open', reset: undefined });
  });

  test.each([
    ['an upload', UPLOAD],
    ['a watch', callHeaders('/feed.v1.FeedService/Watch')],
    ['a check of health', callHeaders('/grpc.health.v1.Health/Check')],
  ])('of 90 KiB in all end %s, and the connection goes on', async (_what, call) => {
    const answer = await sendAfter(call, ...fields(9, 10 * KIB));
    expect(answer).toEqual({ state: 'open', reset: ENHANCE_YOUR_CALM });
  });

  test.each([
    ['an unknown method', callHeaders('/x')],
    ['a call that is not of gRPC', callHeaders('/x', 'application/json')],
  ])('of 90 KiB in all of %s harm nobody', async (_what, call) => {
    expect((await sendAfter(call, ...fields(9, 10 * KIB))).state).toBe('open');
  });

  test('of which one has 70 KiB end their connection', async () => {
    expect((await send(...fields(1, 70 * KIB))).state).toBe('closed');
  });

  test('that stand for 4 KiB with each of 16,000 bytes end their call, and take no memory', async () => {
    // The table of HPACK holds 4 KiB: 32 bytes of them are the header's own.
    const kept = header('x', 'a'.repeat(4_000), true);
    const bomb = Buffer.alloc(16_000, 0xbe);
    const grown = await shared.bystander.growth(async () => {
      for (let i = 0; i < 50; i++)
        expect(await send(kept, bomb)).toEqual({ state: 'open', reset: ENHANCE_YOUR_CALM });
    });
    expect(grown).toBeLessThan(96 * MIB);
  });
});

describe('rooms', () => {
  const MOST = 16_384;
  const join = (chat: number, count: number): Buffer =>
    Buffer.concat(
      Array.from({ length: count }, (_, i) => frame(encodeChat({ room: `r${chat}.${i}` }))),
    );

  test('beyond 16,384 end their chat', async () => {
    const raw = await rawClient(shared.address);
    expect(await ask(raw, 'Chat', join(0, MOST))).toBe('OK');
    expect(await ask(raw, 'Chat', join(0, MOST + 1))).toBe('RESOURCE_EXHAUSTED TOO_MANY_ROOMS');
  });

  test('beyond FEED_MAX_ROOMS end the chat that joins them, and no other', async () => {
    const raw = await rawClient(shared.address);
    const chats = Array.from({ length: 6 }, () => raw.open('Chat'));
    const echoed = chats.map(({ stream }, i) => {
      let bytes = 0;
      stream.on('data', (chunk: Buffer) => (bytes += chunk.length));
      stream.write(Buffer.concat([join(i, MOST), frame(encodeChat({ text: 'in?' }))]));
      return () => bytes > 0;
    });
    await until(() => echoed.every((isIn) => isIn()), 'all rooms');
    const one = raw.open('Chat');
    one.stream.write(join(6, 100_000 - 6 * MOST + 1));
    expect(await answerOf(one)).toBe(
      'RESOURCE_EXHAUSTED LIMIT_EXCEEDED limit=FEED_MAX_ROOMS most=100000',
    );
    expect(chats.filter(({ stream }) => stream.closed)).toEqual([]);
    for (const { stream } of chats) stream.close();
    await until(
      async () => (await ask(raw, 'Chat', join(7, MOST))) === 'OK',
      'room for more, once they are gone',
    );
  });
});

describe('texts of 1 MB', () => {
  const event = (i: number) => ({ id: String(i).padEnd(MIB - 200, 'x'), topic: 'long-ids' });

  test('as ids are stored once, and are ids like any other', async () => {
    const events = Array.from({ length: 40 }, (_, i) => event(i));
    const client = connect(shared.address);
    const first = await upload(client, events);
    expect(first.result).toMatchObject({ received: 40, duplicates: 0 });
    const again = await upload(client, events);
    expect(again.result).toMatchObject({ received: 40, duplicates: 40 });
    const [seen] = await take(client, { topic: 'long-ids', position: 1 }, 1);
    expect(seen.id).toBe(events[0].id);
    client.close();
  });

  test('are refused as names of topics and rooms, and over the limit', async () => {
    const raw = await rawClient(shared.address);
    const long = 'x'.repeat(MIB - 200);
    const invalid = 'INVALID_ARGUMENT EVENT_INVALID index=0 received=0';
    expect(await ask(raw, 'UploadEvents', frame(encodeEvent({ topic: long })))).toBe(invalid);
    const tooLong = encodeEvent({ id: 'x'.repeat(MIB), topic: 't' });
    expect(await ask(raw, 'UploadEvents', frame(tooLong))).toBe(invalid);
    expect(await ask(raw, 'Chat', frame(encodeChat({ room: long })))).toBe(
      'INVALID_ARGUMENT TOPIC_INVALID',
    );
    const watch = (topic: string) => frame(codec.watchRequest.serialize({ topic }));
    expect(await ask(raw, 'Watch', watch(long))).toBe('RESOURCE_EXHAUSTED');
    expect(await ask(raw, 'Watch', watch('x'.repeat(60_000)))).toBe(
      'INVALID_ARGUMENT TOPIC_INVALID index=0',
    );
  });
});

describe('made-up cursors', () => {
  const DIGITS = '0123456789abcdefghjkmnpqrstvwxyz';
  const after = (afterCursor: string) =>
    frame(codec.watchRequest.serialize({ topic: 'bystander', afterCursor }));
  /** What a cursor that nobody was given may be answered with. */
  const REFUSED =
    /^(INVALID_ARGUMENT CURSOR_INVALID|FAILED_PRECONDITION EPOCH_CHANGED earliest=\w{16} head=\w{16}|OUT_OF_RANGE CURSOR_AHEAD head=\w{16})$/;

  test.each([
    ['a letter', 'x'],
    ['zeros', '0'.repeat(16)],
    ['the last of all', `7${'z'.repeat(15)}`],
    ['over the last of all', 'z'.repeat(16)],
    ['capitals', 'ABCDEFGHJKMNPQRS'],
    ['letters that are none of its digits', 'iloulilouliloulo'],
    ['one character too many', '0'.repeat(17)],
    ['40 characters', '0'.repeat(40)],
    ['60 KB', '0'.repeat(60_000)],
    ['no ASCII', '\u{1f600}'.repeat(4)],
    ['zero bytes', '\0'.repeat(16)],
  ])('of %s are refused with a reason', async (_what, cursor) => {
    const raw = await rawClient(shared.address);
    expect(await ask(raw, 'Watch', after(cursor))).toMatch(REFUSED);
  });

  test('2,000 of them are refused, and what is right is served', async () => {
    const raw = await rawClient(shared.address);
    const random = randomOf(3);
    for (let round = 0; round < 20; round++) {
      const cursors = Array.from({ length: 100 }, () =>
        Array.from({ length: 16 }, () => DIGITS[random(32)]).join(''),
      );
      const answers = await Promise.all(cursors.map((cursor) => ask(raw, 'Watch', after(cursor))));
      expect(answers.filter((answer) => !REFUSED.test(answer))).toEqual([]);
    }
    expect(await askAll(raw, (method) => frame(GOOD[method]))).toEqual(SERVED);
  });

  test('that differ in one character from one that was given out skip nothing', async () => {
    const raw = await rawClient(shared.address);
    const client = connect(shared.address);
    const [{ cursor }] = await take(client, { topic: 'bystander', position: 1 }, 1);
    client.close();
    for (let at = 0; at < cursor.length; at++)
      for (const digit of DIGITS) {
        if (digit === cursor[at]) continue;
        const changed = cursor.slice(0, at) + digit + cursor.slice(at + 1);
        const answer = await ask(raw, 'Watch', after(changed));
        // The last three digits of the position may name another one that was given out, among the first 32,768: the bystander
        // gives out 50 a second. No other part may be another one.
        if (at < 7 || at >= 10) expect(answer, changed).toMatch(REFUSED);
        else expect(answer, changed).toMatch(new RegExp(`${REFUSED.source}|^served$`));
      }
  });
});
