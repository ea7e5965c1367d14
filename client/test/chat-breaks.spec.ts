import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { FeedError } from '@feed-events/client';
import { until, within } from '../../test/support/wait.js';
import { type Answer, beginChat, reset, ScriptedServer, status } from './scripted-server.js';
import { client, Subject } from './service.js';

/** Joins two members to a room. `texts` is what bob gets. */
async function adaAndBob(address: string) {
  const texts: string[] = [];
  const [ada, bob] = ['ada', 'bob'].map((from) => client(address).chat('ops', { from }));
  void (async () => {
    for await (const { text } of bob) texts.push(text);
  })();
  await bob.send('');
  return { ada, texts };
}

test('a break that several notice at once makes one call, not one for each', async () => {
  const breaks: Answer = (stream, headers) => {
    beginChat(stream);
    // It takes nothing, so that what is said waits for its flow control.
    stream.pause();
    setTimeout(() => reset('NGHTTP2_INTERNAL_ERROR')(stream, headers), 200);
  };
  const takesAll: Answer = (stream, headers) => {
    beginChat(stream);
    stream.resume().on('end', () => status(0)(stream, headers));
  };
  const server = await ScriptedServer.start(breaks, takesAll);
  const states: string[] = [];
  const chat = client(server.address).chat('r', {
    from: 'ada',
    onState: ({ name }) => states.push(name),
  });
  const listening = (async () => {
    for await (const _ of chat);
  })();
  await Promise.all(Array.from({ length: 5 }, () => chat.send('x'.repeat(200_000))));
  expect(states).toEqual(['connecting', 'joined', 'reconnecting', 'joined']);
  expect(server.calls).toHaveLength(2);
  await chat[Symbol.asyncDispose]();
  await listening;
});

test('what is said after a chat was left is refused, and does not take back what was said before', async () => {
  const { address } = await Subject.start();
  const { ada, texts } = await adaAndBob(address);
  await ada.send('before');
  const left = ada.leave();
  const late: unknown = await ada.send('after').catch((error: unknown) => error);
  await left;
  await until(() => texts.length > 0, 'what was said before');
  await sleep(50);
  expect(texts).toEqual(['before']);
  expect(late).toBeInstanceOf(FeedError);
  expect(late).toMatchObject({ status: 'CANCELLED' });
});

test('what was said before a chat was left is not lost while the server stands still', async () => {
  const { service, address } = await Subject.start();
  const { ada, texts } = await adaAndBob(address);
  await ada.send('first');
  await until(() => texts.length > 0, 'what is said first');
  service.process.kill('SIGSTOP');
  await ada.send('last');
  const left = ada.leave();
  await sleep(3_000);
  service.process.kill('SIGCONT');
  await left;
  await until(() => texts.length > 1, 'what was said last');
  expect(texts).toEqual(['first', 'last']);
});

test('a chat whose onState throws leaves no call behind', async () => {
  let closed = 0;
  const answer: Answer = (stream) => {
    beginChat(stream);
    stream.resume().on('close', () => closed++);
  };
  const server = await ScriptedServer.start(answer);
  const chat = client(server.address).chat('r', {
    from: 'ada',
    onState: ({ name }) => {
      if (name === 'joined') throw new Error('mine');
    },
  });
  await expect(within(chat.send('x'), 'the error')).rejects.toThrow('mine');
  await until(() => closed === 1, 'the end of the call');
});
