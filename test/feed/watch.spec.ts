import { expect, test } from 'vitest';
import { Bell } from '../../src/broker/bell.js';
import { take, upload } from '../support/client.js';
import { runService } from '../support/service.js';
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
  const events = await within(watching, 'the events, by the poll of 5 s', 10_000);
  expect(events.map(({ body }) => body)).toEqual(['rung', 'lost', 'lost, too']);
});
