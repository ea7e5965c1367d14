import { expect, test } from 'vitest';
import { OpenWork } from '../../src/feed/open-work.js';
import { runService } from '../support/service.js';
import { eventually, until } from '../support/wait.js';

const NOTHING = { watches: 0, uploads: 0, chats: 0, subscriptions: 0, members: 0 };

test('what is open is counted, and said at debug when it has changed', async () => {
  const { client, app, log } = await runService();
  const work = app.get(OpenWork);
  const said = () =>
    log
      .filter(({ context }) => context === 'open')
      .map(({ watches, chats }) => ({ watches, chats }));
  expect(work.counts).toEqual(NOTHING);

  const watches = ['a', 'a', 'b'].map((topic) => client.Watch({ topic }));
  const uploading = client.UploadEvents(() => {});
  uploading.write({ topic: 'a' });
  const chat = client.Chat();
  for (const room of ['x', 'y']) chat.write({ room });
  for (const call of [...watches, chat]) call.on('error', () => {});
  const all = { watches: 3, uploads: 1, chats: 1, subscriptions: 3, members: 2 };
  await eventually(() => expect(work.counts).toEqual(all));
  await until(() => said().some(({ watches: open }) => open === 3), 'a line');

  for (const call of [...watches, uploading, chat]) call.cancel();
  await eventually(() => expect(work.counts).toEqual(NOTHING));
  await app.close();
  expect(said().at(-1)).toEqual({ watches: 0, chats: 0 });
});
