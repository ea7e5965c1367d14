import { expect, test } from 'vitest';
import { LiveCalls } from '../../src/feed/live-calls.js';
import { OpenWork } from '../../src/feed/open-work.js';
import { upload } from '../support/client.js';
import { runService } from '../support/service.js';
import { eventually, until } from '../support/wait.js';

const NOTHING = { watches: 0, uploads: 0, chats: 0, subscriptions: 0, members: 0 };

test('the service counts its open calls and rooms, and logs the counts at debug when they have changed', async () => {
  const { client, app, log } = await runService();
  const work = app.get(OpenWork);
  const logged = () =>
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
  await until(() => logged().some(({ watches: open }) => open === 3), 'a line');

  for (const call of [...watches, uploading, chat]) call.cancel();
  await eventually(() => expect(work.counts).toEqual(NOTHING));
  await app.close();
  expect(logged().at(-1)).toEqual({ watches: 0, chats: 0 });
});

test('each open call is listed with its method, its client, its topic and the number of its events and bytes', async () => {
  const { client, app } = await runService();
  const began = performance.now();
  const calls = app.get(LiveCalls);
  const listed = () =>
    Object.fromEntries([...calls].map((call) => [call.method.split('/')[2], call]));

  const watch = client.Watch({ topic: 'watched' });
  const uploading = client.UploadEvents(() => {});
  const chat = client.Chat();
  for (const call of [watch, uploading, chat]) call.on('error', () => {});
  uploading.write({ topic: 'uploaded', body: 'x'.repeat(1_000) });
  chat.write({ text: 'hello' });
  await until(() => [...calls].length === 3, 'open calls');
  expect((await upload(client, [{ topic: 'watched' }, { topic: 'watched' }])).error).toBe(
    undefined,
  );

  const all = {
    Watch: { notes: { topic: 'watched' }, events: 2, endless: true },
    UploadEvents: { notes: { topic: 'uploaded' }, events: 1, endless: false },
    Chat: { notes: {}, events: 1, endless: true },
  };
  await eventually(() => expect(listed()).toMatchObject(all));
  const { Watch, UploadEvents, Chat } = listed();
  expect(UploadEvents.bytes).toBeGreaterThan(1_000);
  for (const { peer, startedAt, bytes } of [Watch, UploadEvents, Chat]) {
    expect(peer).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(startedAt).toBeGreaterThan(began);
    expect(bytes).toBeGreaterThan(0);
  }
  for (const call of [watch, uploading, chat]) call.cancel();
  await until(() => [...calls].length === 0, 'the end of all calls');
});
