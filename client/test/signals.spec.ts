import { getEventListeners } from 'node:events';
import { expect, test, vi } from 'vitest';
import { client, Subject, take } from './service.js';

test('watches, uploads, chats and calls of operators leave nothing in a signal that they share', async () => {
  // Before Node.js 24 it leaves something, which nobody can see, and it all adds up in a signal that lives long.
  const any = vi.spyOn(AbortSignal, 'any');
  const { address } = await Subject.start();
  const feed = client(address);
  const { signal } = new AbortController();
  const left = (): number => getEventListeners(signal, 'abort').length;

  await feed.upload('orders', ['a'], { signal });
  expect(left()).toBe(0);
  await expect(feed.upload('a..b', ['a'], { signal })).rejects.toThrow('topic');
  expect(left()).toBe(0);

  await take(feed.watch('orders', { from: 'earliest', signal }), 1);
  expect(left()).toBe(0);
  await expect(take(feed.watch('a..b', { signal }), 1)).rejects.toMatchObject({
    reason: 'TOPIC_INVALID',
  });
  expect(left()).toBe(0);
  const idle = feed.watch('orders', { signal });
  const next = idle[Symbol.asyncIterator]().next();
  expect(left()).toBeGreaterThan(0);
  await idle[Symbol.asyncDispose]();
  expect(await next).toMatchObject({ done: true });
  expect(left()).toBe(0);

  const chat = feed.chat('kitchen', { from: 'ann', signal });
  await chat.send('hello');
  expect(left()).toBeGreaterThan(0);
  await chat.leave();
  expect(left()).toBe(0);
  await expect(feed.chat('a..b', { from: 'ann', signal }).send('hello')).rejects.toMatchObject({
    reason: 'TOPIC_INVALID',
  });
  expect(left()).toBe(0);

  await feed.admin.getTopic('orders', { signal });
  for await (const _ of feed.admin.listStreams({ signal }));
  await expect(feed.admin.getTopic('a..b', { signal })).rejects.toMatchObject({
    reason: 'TOPIC_INVALID',
  });
  expect(left()).toBe(0);
  expect(any).not.toHaveBeenCalled();
});
