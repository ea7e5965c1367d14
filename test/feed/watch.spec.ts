import { expect, test, vi } from 'vitest';
import { Bell } from '../../src/broker/bell.js';
import { SetReader } from '../../src/repository/set-reader.js';
import { EventRepository } from '../../src/repository/event-repository.js';
import { errorInfo, failure, take, upload } from '../support/client.js';
import { runService } from '../support/service.js';
import { expectNothingMissed, whileNextWatchStarts } from '../support/start-race.js';
import { within } from '../support/wait.js';

test('a bell that loses every ring costs a watch some seconds, and no event', async () => {
  const { client, app } = await runService({ FEED_ENGINE: 'memory' });
  const bell = app.get(Bell);
  const watching = take(client, { topic: 'orders', position: 1 }, 3);
  await upload(client, [{ topic: 'orders', body: 'rung' }]);
  bell.ring = () => {};
  await upload(client, [
    { topic: 'orders', body: 'lost' },
    { topic: 'orders', body: 'lost, too' },
  ]);
  const events = await within(watching, 'the events, by the poll of 5 s');
  expect(events.map(({ body }) => body)).toEqual(['rung', 'lost', 'lost, too']);
});

test('a watch from earliest is told of what is removed between its headers and its first read', async () => {
  const { client, app } = await runService({ FEED_ENGINE: 'memory' });
  await upload(client, [{ topic: 'orders', body: 'removed' }]);
  const log = app.get(EventRepository);
  const floor = log.floor.bind(log);
  vi.spyOn(log, 'floor').mockImplementationOnce(async (topic) => {
    const found = await floor(topic);
    await log.removeTopic('orders');
    await upload(client, [{ topic: 'orders', body: 'later' }]);
    return found;
  });
  const error = await within(failure(client.Watch({ topic: 'orders', position: 1 })), 'its end');
  expect(errorInfo(error.metadata)?.reason).toBe('CURSOR_EXPIRED');
});

test.each([
  ['one topic', { topic: 'orders.a' }],
  ['several topics', { topics: ['orders.*'] }],
])(
  'a live watch of %s misses nothing after feed-head, whatever is removed while it starts',
  async (_what, topics) => {
    const { client, app } = await runService({ FEED_ENGINE: 'memory' });
    const log = app.get(EventRepository);
    whileNextWatchStarts(log, async () => {
      await upload(client, [{ topic: 'orders.a', id: 'removed' }]);
      await log.removeTopic('orders.a');
    });
    const call = client.Watch(topics).on('error', () => {});
    await expectNothingMissed(call, client);
  },
);

test('a watch that looks for a rare topic in a long log looks once a turn, however often the bell rings', async () => {
  const { client, app } = await runService({ FEED_ENGINE: 'memory' });
  await upload(client, [{ topic: 'rare.a', id: 'first' }]);
  for (let i = 0; i < 8; i++)
    await upload(
      client,
      Array.from({ length: 1_000 }, (_, n) => ({ topic: `other.${n}`, id: '' })),
    );
  await upload(client, [{ topic: 'rare.a', id: 'last' }]);
  const bell = app.get(Bell);
  const reads = vi.spyOn(SetReader.prototype, 'read');
  let most = 0;
  let isOver = false;
  const ring = (): void => {
    const before = reads.mock.calls.length;
    for (let i = 0; i < 100; i++) bell.ring(['rare.a']);
    most = Math.max(most, reads.mock.calls.length - before);
    if (!isOver) setImmediate(ring);
  };
  const events = take(client, { topics: ['rare.>'], position: 1 }, 2);
  ring();
  expect((await within(events, 'both events')).map(({ id }) => id)).toEqual(['first', 'last']);
  isOver = true;
  expect(reads.mock.calls.length).toBeGreaterThan(5);
  expect(most).toBeLessThanOrEqual(1);
});

test('many watches that look for rare topics in a long log go on one after another', async () => {
  const { client } = await runService({ FEED_ENGINE: 'memory' });
  for (let i = 0; i < 5; i++)
    await upload(
      client,
      Array.from({ length: 1_000 }, (_, n) => ({ topic: `other.${n}`, id: '' })),
    );
  await upload(client, [{ topic: 'rare', id: 'last' }]);
  const further = vi.spyOn(SetReader.prototype, 'read');
  let before = 0;
  let most = 0;
  let isOver = false;
  const look = (): void => {
    // A watch begins at 0, in the turn in which its request came.
    const now = further.mock.calls.filter(([after]) => after > 0).length;
    most = Math.max(most, now - before);
    before = now;
    if (!isOver) setImmediate(look);
  };
  const watches = Array.from({ length: 20 }, (_, i) =>
    take(client, { topics: ['rare', `other.${i}.none`], position: 1 }, 1),
  );
  look();
  await within(Promise.all(watches), 'an event of each');
  isOver = true;
  expect(before).toBeGreaterThan(20);
  expect(most).toBe(1);
});
