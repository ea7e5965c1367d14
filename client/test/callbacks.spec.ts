import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { CursorExpiredError, FeedError, type Feed } from '@feed-events/client';
import { ChatMessage } from '../src/gen/feed/v1/feed.js';
import { frame } from '../src/grpc/frames.js';
import { within } from '../../test/support/wait.js';
import {
  type Answer,
  beginChat,
  beginUpload,
  events,
  reset,
  ScriptedServer,
  storeUpload,
} from './scripted-server.js';
import { client } from './service.js';

/** Errors of other calls, such as of an upload that a callback makes. After such an error of its own, a watch goes on. */
const OTHERS = [
  ['a call that broke', new FeedError('UNAVAILABLE', 'mine')],
  [
    'a watch that retention overtook',
    new CursorExpiredError('OUT_OF_RANGE', 'mine', { metadata: { earliest: '0000000001k3x9qz' } }),
  ],
] as const;

/** Joins a member, who is sent one message. */
const says: Answer = (stream) => {
  beginChat(stream);
  const message = { from: 'bob', text: 'hello', room: 'r' };
  stream.write(frame(ChatMessage.encode(message).finish()));
};

/** Waits for as long as a watch, an upload or a chat would take to make another call after one that broke. */
async function expectOneCall(server: ScriptedServer): Promise<void> {
  await sleep(300);
  expect(server.calls).toHaveLength(1);
}

async function read(source: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of source);
}

describe.each(OTHERS)('what a callback throws, though it is the error of %s,', (_other, error) => {
  const failAt =
    (wanted: string) =>
    ({ name }: { readonly name: string }): void => {
      if (name === wanted) throw error;
    };

  test.each(['behind', 'live'])('ends a watch whose onState has %s', async (state) => {
    const server = await ScriptedServer.start(events('a', 'b'));
    const watch = client(server.address).watch('t', {
      from: 'earliest',
      expired: 'earliest',
      onState: failAt(state),
    });
    await expect(within(read(watch), 'the end')).rejects.toBe(error);
    await expectOneCall(server);
  });

  test('ends a chat whose onState has joined', async () => {
    const server = await ScriptedServer.start(says);
    const chat = client(server.address).chat('r', { from: 'ada', onState: failAt('joined') });
    await expect(within(read(chat), 'the end')).rejects.toBe(error);
    await expect(chat.send('more')).rejects.toBe(error);
    await expectOneCall(server);
  });

  test('ends an upload whose onProgress throws it', async () => {
    const server = await ScriptedServer.start(storeUpload([]));
    const onProgress = (): void => {
      throw error;
    };
    const upload = client(server.address).upload('t', ['a'], { onProgress });
    await expect(within(upload, 'the end')).rejects.toBe(error);
    await expectOneCall(server);
  });

  test('ends an upload whose onRetry throws it', async () => {
    const server = await ScriptedServer.start((stream, headers) => {
      beginUpload(stream);
      stream.once('data', () => reset('NGHTTP2_CANCEL')(stream, headers));
    });
    const onRetry = (): void => {
      throw error;
    };
    const upload = client(server.address).upload('t', ['a'], { onRetry });
    await expect(within(upload, 'the end')).rejects.toBe(error);
    await expectOneCall(server);
  });

  // Node's Readable.from() does that when a pipeline fails that reads it.
  test.each([
    [
      'a watch',
      events('a'),
      (feed: Feed) => feed.watch('t', { from: 'earliest', expired: 'earliest' }),
    ],
    ['a chat', says, (feed: Feed) => feed.chat('r', { from: 'ada' })],
  ])('ends %s whose iteration it is thrown into', async (_, answer, open) => {
    const server = await ScriptedServer.start(answer);
    const source: AsyncIterable<unknown> = open(client(server.address));
    const iteration = source[Symbol.asyncIterator]();
    await within(iteration.next(), 'a message');
    await expect(within(iteration.throw!(error), 'the end')).rejects.toBe(error);
    await expectOneCall(server);
  });

  test('ends a watch whose iteration it is thrown into after accept()', async () => {
    const server = await ScriptedServer.start(events('a'));
    const watch = client(server.address).watch('t', { from: 'earliest', expired: 'earliest' });
    const iteration = watch[Symbol.asyncIterator]();
    await within(iteration.next(), 'an event');
    watch.accept();
    await expect(within(iteration.throw!(error), 'the end')).rejects.toBe(error);
    await expectOneCall(server);
  });
});
