import { deflateSync, gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { frame } from '../../src/wire/frames.js';
import { connect, take } from '../support/client.js';
import { bytesField, encodeEvent } from '../wire/events.js';
import {
  all,
  answerOf,
  ask,
  askAll,
  type Each,
  flagged,
  GOOD,
  type Method,
  rawClient,
  REFUSED,
  SERVED,
  STREAMS_REFUSE,
} from './answer.js';
import { withBystander } from './bystander.js';

const shared = withBystander();

const METHODS = ['Watch', 'UploadEvents', 'Chat'] as const;
const MIB = 1024 * 1024;
const join = (...parts: readonly Uint8Array[]): Buffer => Buffer.concat(parts);
const TOO_LONG: Each<string> = { Watch: 'RESOURCE_EXHAUSTED', ...STREAMS_REFUSE };

/** The answers to an unknown flag. */
const FLAGGED: Each<string> = { Watch: 'INTERNAL', ...STREAMS_REFUSE };
/** The answers to a compressed message on a stream that announces no compression, or one that is not supported. */
const NOT_ANNOUNCED: Each<string> = {
  Watch: 'INTERNAL',
  UploadEvents: 'INTERNAL COMPRESSION_INVALID received=0',
  Chat: 'INTERNAL COMPRESSION_INVALID',
};
const UNSUPPORTED: Each<string> = {
  Watch: 'UNIMPLEMENTED',
  UploadEvents: 'UNIMPLEMENTED COMPRESSION_UNSUPPORTED received=0',
  Chat: 'UNIMPLEMENTED COMPRESSION_UNSUPPORTED',
};
const FIVE_MIB = bytesField(3, Buffer.alloc(5 * MIB, 'a'));

describe('frames', () => {
  test.each<[string, (good: Buffer) => Buffer, Each<string>]>([
    ['of no message', () => Buffer.alloc(0), { ...SERVED, Watch: 'UNIMPLEMENTED' }],
    ['of two messages', (good) => join(good, good), { ...SERVED, Watch: 'UNIMPLEMENTED' }],
    [
      'that ends inside a header',
      (good) => good.subarray(0, 3),
      { Watch: 'UNIMPLEMENTED', ...STREAMS_REFUSE },
    ],
    [
      'that ends inside a message',
      (good) => good.subarray(0, -1),
      { Watch: 'UNIMPLEMENTED', ...STREAMS_REFUSE },
    ],
    [
      'that ends inside its second message', // grpc-js drops all that follows a watch's request
      (good) => join(good, good.subarray(0, -1)),
      {
        Watch: 'served',
        UploadEvents: 'INVALID_ARGUMENT EVENT_INVALID index=1 received=1',
        Chat: STREAMS_REFUSE.Chat,
      },
    ],
    ['of a length of 4 GiB', () => Buffer.from([0, 0xff, 0xff, 0xff, 0xff, 1]), TOO_LONG],
    ['of a message with an unknown flag', (good) => flagged(good.subarray(5), 2), FLAGGED],
    ['of 5 MiB', (good) => frame(join(good.subarray(5), FIVE_MIB)), TOO_LONG],
  ])('a request %s is served, or refused with its status', async (_what, bytes, expected) => {
    const raw = await rawClient(shared.address);
    expect(await askAll(raw, (method) => bytes(frame(GOOD[method])))).toEqual(expected);
  });

  test.each(METHODS)('a length of 4 GiB is refused before its bytes come: %s', async (method) => {
    const raw = await rawClient(shared.address);
    const call = raw.open(method);
    call.stream.write(Buffer.from([0, 0xff, 0xff, 0xff, 0xff]));
    expect(await answerOf(call)).toBe(TOO_LONG[method]);
  });

  test('one upload over 10,000 topics is served', async () => {
    const raw = await rawClient(shared.address);
    const call = raw.open('UploadEvents');
    for (let i = 0; i < 10_000; i++) call.send(encodeEvent({ id: 'x', topic: `topic.${i}` }));
    call.stream.end();
    expect(await answerOf(call)).toBe('OK');
    const client = connect(shared.address);
    for (const topic of ['topic.0', 'topic.5000', 'topic.9999'])
      expect(await take(client, { topic, position: 1 }, 1)).toMatchObject([{ id: 'x', topic }]);
    client.close();
  });
});

describe('compression', () => {
  const CORRUPT: Each<string> = { Watch: 'INTERNAL', ...STREAMS_REFUSE };
  const compressors = { gzip: gzipSync, deflate: deflateSync };

  describe.each(['gzip', 'deflate'] as const)('%s', (name) => {
    const compress = compressors[name];
    test.each<[string, (good: Buffer) => Buffer, Each<string>]>([
      ['a message', compress, SERVED],
      ['garbage', () => Buffer.from('garbage'), CORRUPT],
      ['an empty message', () => Buffer.alloc(0), CORRUPT],
      ['a message cut short', (good) => compress(good).subarray(0, -3), CORRUPT],
      ['a compression bomb', () => compress(Buffer.alloc(64 * MIB)), TOO_LONG],
    ])('%s is served, or refused with its status', async (_what, message, expected) => {
      const raw = await rawClient(shared.address);
      const answers = await askAll(raw, (method) => flagged(message(GOOD[method])), {
        'grpc-encoding': name,
      });
      expect(answers).toEqual(expected);
    });
  });

  test('a gzip bomb of 1 GiB in less than 1 MiB is refused', async () => {
    const raw = await rawClient(shared.address);
    const member = gzipSync(Buffer.alloc(16 * MIB));
    const bomb = flagged(join(...Array.from({ length: 64 }, () => member)));
    expect(bomb.length).toBeLessThan(MIB);
    const bombs = await Promise.all(
      METHODS.flatMap((method) =>
        Array.from({ length: 4 }, () => ask(raw, method, bomb, { 'grpc-encoding': 'gzip' })),
      ),
    );
    expect(bombs).toEqual(METHODS.flatMap((method) => Array<string>(4).fill(TOO_LONG[method])));
  });

  test.each<[string, string, number, Each<string>]>([
    ['snappy', 'snappy', 1, UNSUPPORTED],
    ['a property of every object', '__proto__', 1, UNSUPPORTED],
    ['30,000 characters', 'x'.repeat(30_000), 1, UNSUPPORTED],
    ['identity', 'identity', 1, NOT_ANNOUNCED],
    ['snappy, on a plain message', 'snappy', 0, SERVED],
    ['gzip, on a plain message', 'gzip', 0, SERVED],
  ])(
    'a grpc-encoding of %s is served, or refused with its status',
    async (_what, encoding, flag, expected) => {
      const raw = await rawClient(shared.address);
      const answers = await askAll(raw, (method) => flagged(GOOD[method], flag), {
        'grpc-encoding': encoding,
      });
      expect(answers).toEqual(expected);
    },
  );
});

/**
 * Methods of each service, a valid message of each, and the answers to that message if it is marked as compressed, and with an unknown
 * flag.
 */
const OF_EACH_SERVICE: readonly [string, Buffer, string?, string?][] = [
  ['/feed.v1.FeedService/Watch', GOOD.Watch],
  ['/feed.v1.FeedAdmin/ListTopics', Buffer.alloc(0)],
  ['/feed.v1.FeedAdmin/Backup', Buffer.alloc(0)],
  ['/grpc.health.v1.Health/Check', Buffer.alloc(0)],
  ['/grpc.health.v1.Health/Watch', Buffer.alloc(0)],
  [
    '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    bytesField(7, '*'),
    NOT_ANNOUNCED.Chat,
    REFUSED.Watch,
  ],
];

describe('a message that is marked as compressed', () => {
  test.each(OF_EACH_SERVICE)(
    'is INTERNAL without grpc-encoding, and with identity: %s',
    async (path, message, toMarked = 'INTERNAL', toUnknownFlag = 'INTERNAL') => {
      const raw = await rawClient(shared.address);
      const answerTo = (bytes: Buffer, headers: Record<string, string> = {}): Promise<string> =>
        ask(raw, '', bytes, { ':path': path, ...headers });
      const marked = flagged(message);
      expect(await answerTo(marked)).toBe(toMarked);
      expect(await answerTo(marked, { 'grpc-encoding': 'identity' })).toBe(toMarked);
      expect(await answerTo(flagged(message, 2))).toBe(toUnknownFlag);
    },
  );

  test('is served with its encoding by FeedAdmin and health', async () => {
    const raw = await rawClient(shared.address);
    for (const path of ['/feed.v1.FeedAdmin/ListTopics', '/grpc.health.v1.Health/Check']) {
      const headers = { ':path': path, 'grpc-encoding': 'gzip' };
      expect(await ask(raw, '', flagged(gzipSync(Buffer.alloc(0))), headers)).toBe('OK');
    }
  });
});

describe('headers', () => {
  const message = (method: Method): Buffer => frame(GOOD[method]);

  test.each<[string, Record<string, string | undefined>, Each<string>]>([
    ['a content type of json', { 'content-type': 'application/json' }, all('HTTP 415')],
    ['a content type of grpc-web', { 'content-type': 'application/grpc-web' }, all('HTTP 415')],
    [
      'a content type of grpc-web with protobuf',
      { 'content-type': 'application/grpc-web+proto' },
      all('HTTP 415'),
    ],
    [
      'a content type of gRPC with json',
      { 'content-type': 'application/grpc+json' },
      all('HTTP 415'),
    ],
    [
      'a content type that only begins as gRPC',
      { 'content-type': 'application/grpcfoo' },
      all('HTTP 415'),
    ],
    ['a content type with protobuf', { 'content-type': 'application/grpc+proto' }, SERVED],
    [
      'a content type with a parameter',
      { 'content-type': 'application/grpc; charset=utf-8' },
      SERVED,
    ],
    [
      'a content type with protobuf and a parameter',
      { 'content-type': 'application/grpc+proto ;x=y' },
      SERVED,
    ],
    ['no content type', { 'content-type': undefined }, all('HTTP 415')],
    // Node ends the request of a GET after its headers, so that it has no message.
    ['the HTTP method GET', { ':method': 'GET' }, { ...SERVED, Watch: 'UNIMPLEMENTED' }],
    ['the HTTP method PUT', { ':method': 'PUT' }, SERVED],
    ['60 KB of metadata', { 'x-a': 'a'.repeat(20_000), 'x-b': 'b'.repeat(40_000) }, SERVED],
    ['a -bin header that is no base64', { 'x-bin': '!!! not base64 \u00ff' }, SERVED],
    ['an empty -bin header', { 'x-bin': '' }, SERVED],
    ['trailers of an error', { 'grpc-status': '13', 'grpc-status-details-bin': 'AAAA' }, SERVED],
  ])('a call with %s is served, or refused with its status', async (_what, headers, expected) => {
    const raw = await rawClient(shared.address);
    expect(await askAll(raw, message, headers)).toEqual(expected);
  });

  test.each(['', 'x', '1', '-1S', '1.5S', '999999999S', '1s', '1S1S', ' 1S', '99999999H'])(
    'an invalid grpc-timeout of "%s" is ignored',
    async (timeout) => {
      const raw = await rawClient(shared.address);
      expect(await askAll(raw, message, { 'grpc-timeout': timeout })).toEqual(SERVED);
    },
  );

  test.each(METHODS)(
    'a grpc-timeout of 0 ends a call with DEADLINE_EXCEEDED: %s',
    async (method) => {
      const raw = await rawClient(shared.address);
      const call = raw.open(method, { 'grpc-timeout': '0n' });
      expect(await answerOf(call)).toBe('DEADLINE_EXCEEDED');
    },
  );

  test.each([
    '/',
    '/x',
    '/feed.v1.FeedService/Nothing',
    '/feed.v2.FeedService/Watch',
    '/feed.v1.FeedService/__proto__',
    '/feed.v1.FeedService/Watch/',
    '//feed.v1.FeedService/Watch',
    '/%ff?x=%',
    '/\u00e9\u00ff',
    `/${'x'.repeat(5_000)}`,
  ])('the unknown path %s is UNIMPLEMENTED', async (path) => {
    const raw = await rawClient(shared.address);
    expect(await ask(raw, '', frame(GOOD.Watch), { ':path': path })).toBe('UNIMPLEMENTED');
  });

  test('2,000 headers are refused; the connection goes on', async () => {
    const raw = await rawClient(shared.address);
    const headers = Object.fromEntries(Array.from({ length: 2_000 }, (_, i) => [`x-${i}`, 'a']));
    const ENHANCE_YOUR_CALM = 11;
    expect(await ask(raw, 'Watch', message('Watch'), headers)).toBe(`reset ${ENHANCE_YOUR_CALM}`);
    expect(await askAll(raw, message)).toEqual(SERVED);
  });
});
