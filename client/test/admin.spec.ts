import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { type FeedError, ForbiddenError, type OpenStream, type Topic } from '@feed-events/client';
import { Issuer } from '../../test/support/tokens.js';
import { eventually, within } from '../../test/support/wait.js';
import { client, numbers, Subject, take } from './service.js';

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

const nameOf = ({ topic }: Topic): string => topic;

test('lists topics of more than one page, describes one, and removes it', async () => {
  const subject = await Subject.start({ FEED_ENGINE: 'memory' });
  const feed = subject.client();
  const names = numbers(1_000, 2_100).map((number) => `many.${number}`);
  await Promise.all(names.map((name) => feed.upload(name, ['x'])));
  await feed.upload('orders', ['hello', 'world']);
  expect((await all(feed.admin.listTopics('many.'))).map(nameOf)).toEqual(names);
  expect((await all(feed.admin.listTopics())).map(nameOf)).toEqual([...names, 'orders']);

  const before = await feed.admin.getTopic('orders');
  const [first, second] = await take(feed.watch('orders', { from: 'earliest' }), 2);
  expect(before).toMatchObject({ topic: 'orders', events: 2 });
  expect([before.oldest!.cursor, before.newest!.cursor]).toEqual([first.cursor, second.cursor]);
  expect(before.newest!.storedAt).toBeInstanceOf(Date);
  expect(await feed.admin.deleteTopic('orders')).toMatchObject({ events: 2, bytes: before.bytes });
  expect(await feed.admin.getTopic('orders')).toEqual({
    topic: 'orders',
    events: 0,
    bytes: 0,
    oldest: undefined,
    newest: undefined,
    watches: 0,
  });
  const invalid = feed.admin.getTopic('a b');
  await expect(invalid).rejects.toMatchObject({ reason: 'TOPIC_INVALID' });
});

test('a watch, an upload and a chat that an operator ends give up, with the reason', async () => {
  const subject = await Subject.start({ FEED_ENGINE: 'memory' });
  const [feed, operator] = [subject.client(), client(subject.address)];
  const ended = async (work: Promise<unknown>): Promise<FeedError> =>
    within(
      work.then(
        () => Promise.reject(new Error('it ended well')),
        (error: FeedError) => error,
      ),
      'the end',
    );
  const chat = feed.chat('kitchen', { from: 'ann' });
  async function* endless() {
    for (;;) {
      yield 'one more';
      await sleep(20);
    }
  }
  const work = [
    ended(all(feed.watch('orders'))),
    ended(feed.upload('audit', endless())),
    ended(all(chat)),
  ];
  // An upload makes a new call every 250 ms: the one that was listed may be over when it is to be ended.
  const endOne = (topic: string): Promise<string> =>
    eventually(async () => {
      const found = await all(operator.admin.listStreams());
      const { id } = found.find(({ topics }) => topics.includes(topic))!;
      expect((await operator.admin.endStream(id)).id).toBe(id);
      return id;
    });
  const ids: string[] = [];
  for (const topic of ['audit', 'kitchen', 'orders']) ids.push(await endOne(topic));
  for (const error of await Promise.all(work))
    expect(error).toMatchObject({ status: 'ABORTED', reason: 'ENDED_BY_OPERATOR' });
  // The list may settle a moment after the clients have got their errors.
  await eventually(async () => expect(await all(operator.admin.listStreams())).toEqual([]));
  const unknown = operator.admin.endStream(ids[0]);
  await expect(unknown).rejects.toMatchObject({ status: 'NOT_FOUND', reason: 'STREAM_UNKNOWN' });
});

test('asks each of its servers for streams, and finds the one that has a stream', async () => {
  const [one, other] = [await Subject.start({ FEED_ENGINE: 'memory' }), await Subject.start()];
  const operator = client([one.address, other.address]);
  const feeds = [one.client(), other.client()];
  const watches = feeds.map((feed, i) =>
    all(feed.watch(`t${i}`)).catch((error: FeedError) => error),
  );
  const streams = await eventually(async () => {
    const found: OpenStream[] = await all(operator.admin.listStreams());
    expect(found.map(({ topics }) => topics[0])).toEqual(['t0', 't1']);
    return found;
  });
  expect(new Set(streams.map(({ replica }) => replica)).size).toBe(2);
  for (const { id } of streams.toReversed()) await operator.admin.endStream(id);
  for (const watch of watches)
    expect(await within(watch, 'its end')).toMatchObject({ reason: 'ENDED_BY_OPERATOR' });
});

test('a caller who is no administrator gets a ForbiddenError, and a signal cancels a call', async () => {
  const issuer = await Issuer.create();
  const subject = await Subject.start({ FEED_ENGINE: 'memory', ...issuer.settings() });
  const nobody = subject.client();
  await expect(nobody.admin.getTopic('t')).rejects.toBeInstanceOf(ForbiddenError);
  const feed = subject.client({ token: await issuer.token() });
  expect(await feed.admin.getTopic('t')).toMatchObject({ events: 0 });
  const signal = AbortSignal.abort();
  const cancelled = feed.admin.getTopic('t', { signal });
  await expect(cancelled).rejects.toMatchObject({ status: 'CANCELLED' });
});

test('a topic that UTF-8 can not have is not taken for another one', async () => {
  const { admin } = client('127.0.0.1:1');
  const message = /is a text of whole Unicode characters$/;
  await expect(admin.getTopic('a\ud800')).rejects.toThrow(message);
  await expect(admin.deleteTopic('a\ud800')).rejects.toThrow(message);
  await expect(all(admin.listTopics('a\ud800'))).rejects.toThrow(message);
});
