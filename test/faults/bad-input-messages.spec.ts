import { describe, expect, test } from 'vitest';
import { frame, messagesIn } from '../../src/wire/frames.js';
import { codec, connect, take, upload } from '../support/client.js';
import { until } from '../support/wait.js';
import { bytesField, tag, varint, varintField } from '../wire/events.js';
import {
  all,
  ask,
  askAll,
  type Each,
  GOOD,
  type Method,
  rawClient,
  REFUSED,
  SERVED,
} from './answer.js';
import { withBystander } from './bystander.js';

const shared = withBystander();

const join = (...parts: readonly Uint8Array[]): Buffer => Buffer.concat(parts);
const NOT_UTF8 = Buffer.from([0x61, 0xc3, 0x28]);

/** A field number that the contract does not use. */
const UNKNOWN = 99;
const DEEP = 10_000;
const groups = (depth: number): Buffer =>
  join(Buffer.alloc(2 * depth, tag(UNKNOWN, 3)), Buffer.alloc(2 * depth, tag(UNKNOWN, 4)));

/** Makes `depth` fields, each inside the one before. */
function nested(depth: number): Buffer {
  const heads: Buffer[] = [];
  for (let i = 0, length = 0; i < depth; i++) {
    heads.push(join(tag(UNKNOWN, 2), varint(length)));
    length += heads[i].length;
  }
  return join(...heads.toReversed());
}

test.each<[string, (good: Buffer) => Buffer, Each<string>]>([
  [
    'without a field',
    () => Buffer.alloc(0),
    { ...REFUSED, Watch: 'INVALID_ARGUMENT TOPIC_INVALID index=0', Chat: 'OK' },
  ],
  ['cut short inside a field', (good) => good.subarray(0, -1), REFUSED],
  ['cut short inside a tag', (good) => join(good, Buffer.from([0x9a])), REFUSED],
  ['with a length over what is there', (good) => join(good, tag(9, 2), varint(5)), REFUSED],
  ['with field number 0', (good) => join(good, varintField(0, 1)), REFUSED],
  ['with a group', (good) => join(good, groups(1)), REFUSED],
  ['with the end of a group', (good) => join(good, tag(UNKNOWN, 4)), REFUSED],
  ['with groups 10,000 deep', (good) => join(good, groups(DEEP)), REFUSED],
  ['with fields nested 10,000 deep', (good) => join(good, nested(DEEP)), SERVED],
  ['with wire type 6', (good) => join(good, tag(9, 6)), REFUSED],
  ['with wire type 7', (good) => join(good, tag(9, 7)), REFUSED],
  ['with a number of 11 bytes', (good) => join(good, tag(9, 0), varint(1, 11)), REFUSED],
  [
    'with its field twice', // in protobuf, the last one counts; a stored event must not depend on that
    (good) => join(good, good),
    { ...SERVED, UploadEvents: REFUSED.UploadEvents },
  ],
])('a message %s is served, or refused with its reason', async (_what, message, expected) => {
  const raw = await rawClient(shared.address);
  expect(await askAll(raw, (method) => frame(message(GOOD[method])))).toEqual(expected);
});

describe('a field that is sent twice', () => {
  const good = bytesField(1, 't');
  const CURSOR = 'CURSOR_INVALID';

  // The first value of each row is refused and the second is served, so the answer shows which of them counts.
  test.each<[string, Buffer, Buffer, string]>([
    ['topic', bytesField(1, 'a b'), good, 'TOPIC_INVALID index=0'],
    ['after_cursor', join(good, bytesField(2, 'x')), bytesField(2, ''), CURSOR],
    ['position', join(good, varintField(3, 99)), varintField(3, 1), 'START_INVALID'],
    [
      'since',
      join(good, bytesField(4, varintField(1, -(2 ** 40)))),
      bytesField(4, varintField(1, 5)),
      'START_INVALID',
    ],
    [
      'heartbeat',
      join(good, bytesField(6, varintField(2, 5))),
      bytesField(6, varintField(1, 5)),
      'HEARTBEAT_INVALID',
    ],
    ['start', join(good, bytesField(2, 'x')), varintField(3, 1), CURSOR],
    ['start, with last: 0,', join(good, varintField(3, 99)), varintField(5, 0), 'START_INVALID'],
  ])('counts with its last value: %s of a watch', async (_name, bad, well, reason) => {
    const raw = await rawClient(shared.address);
    expect(await ask(raw, 'Watch', frame(join(bad, well)))).toBe('served');
    expect(await ask(raw, 'Watch', frame(join(good, well, bad)))).toBe(
      `INVALID_ARGUMENT ${reason}`,
    );
  });

  /** Opens a watch with these fields, and returns the ids of its first events, `count` or more. */
  async function watched(count: number, ...fields: readonly Buffer[]): Promise<string[]> {
    const raw = await rawClient(shared.address);
    const { stream } = raw.open('Watch');
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.end(frame(join(...fields)));
    const events = () =>
      [...messagesIn(join(...chunks))].map((one) => codec.event.deserialize(one));
    await until(() => events().length >= count, 'events');
    return events().map(({ id }) => id);
  }

  test('counts with its last value: a watch gets the events of its last topic, from its last start on', async () => {
    const client = connect(shared.address);
    for (const topic of ['first', 'second'])
      await upload(
        client,
        [1, 2, 3].map((i) => ({ id: `${topic}-${i}`, topic })),
      );
    const [one, two] = await take(client, { topic: 'second', position: 1 }, 2);
    client.close();
    const second = bytesField(1, 'second');
    const earliest = varintField(3, 1);
    const ids = ['second-1', 'second-2', 'second-3'];
    expect(await watched(3, bytesField(1, 'first'), earliest, second)).toEqual(ids);
    const after = [two, one].map(({ cursor }) => bytesField(2, cursor));
    expect(await watched(2, second, ...after)).toEqual(ids.slice(1));
    expect(await watched(1, second, ...after.toReversed())).toEqual(ids.slice(2));
    expect(await watched(2, second, varintField(5, 3), varintField(5, 2))).toEqual(ids.slice(1));
    expect(await watched(1, second, after[1], earliest, varintField(5, 1))).toEqual(ids.slice(2));
    expect(await watched(3, second, varintField(5, 1), earliest)).toEqual(ids);
  });

  test('counts with its last value: from, text and room of a chat message', async () => {
    const raw = await rawClient(shared.address);
    const client = connect(shared.address);
    const member = client.Chat();
    member.on('error', () => {});
    const received: unknown[] = [];
    member.on('data', (message) => received.push(message));
    member.write({ room: 'second' });
    member.write({ text: 'in?' });
    await until(() => received.length === 1, 'the echo');

    const { stream } = raw.open('Chat');
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    const twice = (number: number): Buffer =>
      join(bytesField(number, 'first'), bytesField(number, 'second'));
    stream.write(frame(join(twice(1), twice(2))));
    stream.write(frame(join(twice(1), twice(2), twice(3))));
    await until(() => received.length === 2 && chunks.length > 0, 'both');
    const texts = [...messagesIn(join(...chunks))].map((one) => codec.chatMessage.deserialize(one));
    expect(texts.map(({ text }) => text)).toEqual(['echo: second']);
    expect(received[1]).toEqual({ from: 'second', text: 'second', room: 'second' });
    member.cancel();
    client.close();
  });

  test.each<[string, Buffer, Buffer]>([
    ['id', bytesField(1, 'a'), bytesField(2, 't')],
    ['topic', bytesField(2, 't'), Buffer.alloc(0)],
    ['body', bytesField(3, 'a'), bytesField(2, 't')],
    ['at', bytesField(4, varintField(1, 5)), bytesField(2, 't')],
    ['cursor', bytesField(5, 'a'), bytesField(2, 't')],
  ])('is refused in an event: %s', async (_name, field, others) => {
    const raw = await rawClient(shared.address);
    const bytes = join(
      frame(join(field, others)),
      frame(join(field, field, others)),
      frame(join(field, others)),
    );
    expect(await ask(raw, 'UploadEvents', bytes)).toBe(
      'INVALID_ARGUMENT EVENT_INVALID index=1 received=1',
    );
  });
});

const STRINGS: [Method, string, number][] = [
  ['Watch', 'topic', 1],
  ['Watch', 'after_cursor', 2],
  ['UploadEvents', 'id', 1],
  ['UploadEvents', 'topic', 2],
  ['UploadEvents', 'body', 3],
  ['Chat', 'from', 1],
  ['Chat', 'text', 2],
  ['Chat', 'room', 3],
];

test.each(STRINGS)('invalid UTF-8 in %s %s is refused', async (method, _name, number) => {
  const raw = await rawClient(shared.address);
  const own = bytesField(number, NOT_UTF8);
  const isTopic = GOOD[method][0] === own[0];
  const message = isTopic ? own : join(GOOD[method], own);
  expect(await ask(raw, method, frame(message))).toBe(REFUSED[method]);
});

test("invalid UTF-8 in a producer's cursor is dropped with the cursor", async () => {
  const raw = await rawClient(shared.address);
  const message = join(GOOD.UploadEvents, bytesField(5, NOT_UTF8));
  expect(await ask(raw, 'UploadEvents', frame(message))).toBe('OK');
});

const VALUES: Record<number, (number: number) => Buffer> = {
  0: (number) => varintField(number, 1),
  1: (number) => join(tag(number, 1), Buffer.alloc(8)),
  2: (number) => bytesField(number, 'abc'),
  3: (number) => join(tag(number, 3), tag(number, 4)),
  5: (number) => join(tag(number, 5), Buffer.alloc(4)),
};

test.each<[Method, number, number]>([
  ...[1, 2, 4, 6].map((number) => ['Watch', number, 2] as [Method, number, number]),
  ...[3, 5].map((number) => ['Watch', number, 0] as [Method, number, number]),
  ...[1, 2, 3, 4, 5].map((number) => ['UploadEvents', number, 2] as [Method, number, number]),
  ...[1, 2, 3].map((number) => ['Chat', number, 2] as [Method, number, number]),
])('%s refuses its field %i of any wire type but %i', async (method, number, right) => {
  const raw = await rawClient(shared.address);
  const others = GOOD[method][0] === tag(number, 2)[0] ? Buffer.alloc(0) : GOOD[method];
  for (const type of [0, 1, 2, 3, 5].filter((one) => one !== right)) {
    const message = join(others, VALUES[type](number));
    expect(await ask(raw, method, frame(message)), `type ${type}`).toBe(REFUSED[method]);
  }
});

test.each<[string, Buffer]>([
  ['since of a wrong wire type', bytesField(4, bytesField(1, 'abc'))],
  ['since with a group', bytesField(4, join(tag(3, 3), tag(3, 4)))],
  ['since cut short', bytesField(4, tag(1, 0))],
  ['a heartbeat of a wrong wire type', bytesField(6, join(tag(2, 5), Buffer.alloc(4)))],
  // protobuf.js reads five bytes of a longer int32 and skips five more, so it goes on inside the next field.
  ['nanos of six bytes', bytesField(6, join(varintField(1, 5), tag(2, 0), varint(1, 6)))],
  ['a position of six bytes', join(tag(3, 0), varint(1, 6), bytesField(7, 'abcdef'))],
])('a watch with %s is refused', async (_what, field) => {
  const raw = await rawClient(shared.address);
  expect(await ask(raw, 'Watch', frame(join(GOOD.Watch, field)))).toBe(REFUSED.Watch);
});

/** Returns a generator of numbers from 0 to 1. The same seed gives the same numbers (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

const randomBytes = (next: () => number, length: number): Buffer =>
  Buffer.from(Array.from({ length }, () => Math.floor(next() * 256)));

const RIGHT: Each<RegExp> = {
  Watch:
    /^(served|INVALID_ARGUMENT (REQUEST_INVALID|TOPIC_INVALID index=0|CURSOR_INVALID|START_INVALID|HEARTBEAT_INVALID))$/,
  UploadEvents: /^(OK|INVALID_ARGUMENT EVENT_INVALID index=0 received=0)$/,
  Chat: /^(OK|INVALID_ARGUMENT (MESSAGE|TOPIC)_INVALID)$/,
};

test.each<[string, (good: Buffer, next: () => number) => Buffer]>([
  ['random bytes', (_good, next) => randomBytes(next, 60 * next())],
  [
    'valid ones with a byte changed',
    (good, next) => {
      const message = join(good, bytesField(3, 'abc'), VALUES[Math.floor(next() * 4)](4));
      message[Math.floor(next() * message.length)] = Math.floor(next() * 256);
      return message;
    },
  ],
])('garbage is served or refused with a reason: 300 messages, %s', async (_what, make) => {
  const raw = await rawClient(shared.address);
  for (const method of ['Watch', 'UploadEvents', 'Chat'] as const) {
    const next = random(7);
    const messages = Array.from({ length: 300 }, () => make(GOOD[method], next));
    const answers = await Promise.all(messages.map((one) => ask(raw, method, frame(one))));
    const wrong = messages.filter((_one, i) => !RIGHT[method].test(answers[i]));
    expect(wrong.map((one) => `${method} ${one.toString('hex')}`)).toEqual([]);
  }
});

test('300 calls that send random bytes instead of frames are refused', async () => {
  const raw = await rawClient(shared.address);
  const next = random(11);
  for (let i = 0; i < 100; i++) {
    const bytes = randomBytes(next, 1 + 60 * next());
    const answers = await askAll(raw, () => bytes);
    expect(answers, bytes.toString('hex')).toEqual({
      ...all('INVALID_ARGUMENT'),
      Watch: expect.stringMatching(/^(UNIMPLEMENTED|RESOURCE_EXHAUSTED)$/) as string,
      UploadEvents: REFUSED.UploadEvents,
      Chat: REFUSED.Chat,
    });
  }
});
