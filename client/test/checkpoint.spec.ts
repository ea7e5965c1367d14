import { writeFile } from 'node:fs/promises';
import { constants } from 'node:http2';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type Checkpoint, FeedError, fileCheckpoint } from '@feed-events/client';
import { temporaryDirectory } from '../../test/support/service.js';
import { until, within } from '../../test/support/wait.js';
import { CheckpointSaver } from '../src/checkpoint.js';
import {
  type Answer,
  cursorAt,
  eventFrame,
  events,
  ScriptedServer,
  status,
  watchAnswer,
} from './scripted-server.js';
import { bodies, client, take } from './service.js';

describe('a checkpoint', () => {
  test('that is due while a slow save goes on is saved after it', async () => {
    const saved: string[] = [];
    const saver = new CheckpointSaver(
      {
        load: async () => undefined,
        save: async (cursor) => {
          await sleep(100);
          saved.push(cursor);
        },
      },
      { time: 20 },
    );
    saver.move('a', 1);
    await sleep(50);
    saver.move('b', 1); // due after 20 ms, while the save of `a` goes on
    await until(() => saved.includes('b'), 'the save of b');
  });

  test.each([
    [
      'throws at once',
      () => {
        throw new Error('no room');
      },
    ],
    ['rejects', () => Promise.reject(new Error('no room'))],
    [
      'rejects as a broken call does',
      () => Promise.reject(new FeedError('UNAVAILABLE', 'no room')),
    ],
  ])('whose save %s ends the watch with that error, not the process', async (_, save) => {
    const server = await ScriptedServer.start(events('a', 'b', 'c'));
    const watch = client(server.address).watch('t', {
      checkpoint: { load: async () => undefined, save },
      checkpointEvery: { time: 1 },
    });
    const reading = (async () => {
      for await (const event of watch) await sleep(event.body.length * 30);
    })();
    await expect(within(reading, 'the end')).rejects.toThrow('no room');
    expect(server.calls).toHaveLength(1);
  });

  test('whose save failed ends a watch that finds no server any more', async () => {
    const begins: Answer = (stream, headers) => {
      events()(stream, headers);
      setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), 50);
    };
    const server = await ScriptedServer.start(begins, status(14, 'away'));
    const save = async (): Promise<void> => {
      await sleep(300); // By then, the watch connects again and again.
      throw new Error('no room');
    };
    const reading = take(
      client(server.address).watch('t', { checkpoint: { load: async () => undefined, save } }),
      1,
    );
    await expect(within(reading, 'the end')).rejects.toThrow('no room');
  });

  test('whose load rejects as a broken call does ends the watch, which makes no call', async () => {
    const server = await ScriptedServer.start(events('a'));
    const load = () => Promise.reject(new FeedError('UNAVAILABLE', 'the database is away'));
    const watch = client(server.address).watch('t', {
      checkpoint: { load, save: async () => {} },
    });
    await expect(within(take(watch, 1), 'the end')).rejects.toThrow('the database is away');
    expect(server.calls).toHaveLength(0);
  });

  test('whose load never ends lets the watch end, by its signal and by its iterator', async () => {
    const server = await ScriptedServer.start(events('a'));
    const feed = client(server.address);
    let loads = 0;
    const load = () => new Promise<undefined>(() => loads++);
    const checkpoint = { load, save: async () => {} };
    const stopping = new AbortController();
    const taken = take(feed.watch('t', { checkpoint, signal: stopping.signal }), 1);
    const iterator = feed.watch('t', { checkpoint })[Symbol.asyncIterator]();
    const next = iterator.next();
    await until(() => loads === 2, 'the loads');
    stopping.abort();
    expect(await within(taken, 'the end by the signal')).toEqual([]);
    await within(iterator.return!(), 'return()');
    expect(await next).toMatchObject({ done: true });
    expect(server.calls).toHaveLength(0);
  });

  test('may be saved by a function that returns nothing', async () => {
    const server = await ScriptedServer.start(events('a', 'b', 'c'));
    const saved: string[] = [];
    const checkpoint = {
      load: async () => undefined,
      save: (cursor: string) => void saved.push(cursor),
    } as unknown as Checkpoint;
    await take(client(server.address).watch('t', { checkpoint }), 3);
    expect(saved.at(-1)).toBe('0000000003k3x9qz');
  });

  test.each([[null], ['']])('whose load has %j begins where the watch says', async (nothing) => {
    const server = await ScriptedServer.start(events('a'));
    const checkpoint = { load: async () => nothing, save: async () => {} } as unknown as Checkpoint;
    const feed = client(server.address);
    expect(bodies(await take(feed.watch('t', { from: 'earliest', checkpoint }), 1))).toEqual(['a']);
  });

  test('is saved at the end, though onState throws', async () => {
    const server = await ScriptedServer.start(events('a', 'b'));
    const saved: string[] = [];
    const checkpoint = {
      load: async () => undefined,
      save: async (cursor: string) => void saved.push(cursor),
    };
    const onState = ({ name }: { name: string }): void => {
      if (name === 'ended') throw new Error('mine');
    };
    const watch = take(client(server.address).watch('t', { checkpoint, onState }), 2);
    await expect(watch).rejects.toThrow('mine');
    expect(saved.at(-1)).toBe('0000000002k3x9qz');
  });

  test.each([['t'], [['t', 'u']]])(
    'of a live watch of %j has its start before an event is handled, so that the event comes again after a crash',
    async (topics) => {
      const answer = watchAnswer({ head: 7, earliest: 3 }, eventFrame('a', 8));
      const server = await ScriptedServer.start(answer);
      const saved: string[] = [];
      const checkpoint = {
        load: async () => saved.at(-1),
        save: async (cursor: string) => void saved.push(cursor),
      };
      const watch = client(server.address).watch(topics, { checkpoint });
      for await (const { body } of watch) {
        expect(body).toBe('a');
        await until(() => saved.length > 0, 'a save while the event is in hand');
        break;
      }
      expect(saved).toEqual([cursorAt(7)]);
    },
  );

  test.each([
    ['rubbish', 'not a cursor\n'],
    ['another file', 'x'.repeat(100_000)],
    ['bytes that are no text', Buffer.from([0, 0, 0xff, 0xfe])],
  ])('in a file that holds %s is refused, and the file named', async (_, content) => {
    const path = join(temporaryDirectory(), 'cursor');
    await writeFile(path, content);
    await expect(fileCheckpoint(path).load()).rejects.toThrow(path);
  });
});

test('an empty cursor means live, so the watch loses nothing from its start on', async () => {
  const server = await ScriptedServer.start((stream, headers) => {
    events()(stream, headers);
    setTimeout(() => stream.close(8), 50);
  }, events('a'));
  const requests: Buffer[] = [];
  server.onRequest = (bytes) => requests.push(bytes);
  await take(client(server.address).watch('t', { from: { cursor: '' } }), 1);
  expect(requests.map((bytes) => bytes.includes('0000000001k3x9qz'))).toEqual([false, true]);
});
