import { expect, test } from 'vitest';
import type { Chat, ChatOptions, ChatState, Feed } from '@feed-events/client';
import { eventually, until, within } from '../../test/support/wait.js';
import { client, Subject } from './service.js';

/** Reads a chat in the background. */
function listen(chat: Chat): { texts: string[]; ended: Promise<void> } {
  const texts: string[] = [];
  const ended = (async () => {
    for await (const { from, text } of chat) texts.push(`${from}: ${text}`);
  })();
  return { texts, ended };
}

test('members of a room get what others say, in order', async () => {
  const { address } = await Subject.start();
  await using ada = client(address).chat('ops', { from: 'ada' });
  const states: string[] = [];
  await using bob = client(address).chat('ops', {
    from: 'bob',
    onState: ({ name }) => states.push(name),
  });
  const toAda = listen(ada);
  const toBob = listen(bob);
  await until(async () => {
    await ada.send('are you there?');
    return toBob.texts.length > 0;
  }, 'bob');
  for (let i = 0; i < 100; i++) await bob.send(String(i));
  await until(() => toAda.texts.length === 100, 'all that bob said');
  expect(toAda.texts).toEqual(Array.from({ length: 100 }, (_, i) => `bob: ${i}`));
  expect(states).toEqual(['connecting', 'joined']);
});

test('a chat joins again after a break, and says so; what is said to it meanwhile waits', async () => {
  const subject = await Subject.start();
  const states: ChatState[] = [];
  const chat = subject
    .client()
    .chat('ops', { from: 'ada', onState: (state) => states.push(state) });
  const other = client(subject.address).chat('ops', { from: 'bob' });
  const toAda = listen(chat);
  await until(() => states.some(({ name }) => name === 'joined'), 'the room');
  await subject.service.kill('SIGKILL');
  await until(() => states.some(({ name }) => name === 'reconnecting'), 'the break');
  const sent = chat.send('still here');
  await subject.restart();
  await sent;
  listen(other);
  await until(async () => {
    await other.send('hello');
    return toAda.texts.includes('bob: hello');
  }, 'the room after the break');
  expect(states.find(({ name }) => name === 'reconnecting')).toMatchObject({
    reason: { status: 'UNAVAILABLE' },
  });
});

test('a chat ends when it is left, and sends before that what it was told to', async () => {
  const { address } = await Subject.start();
  const bob = client(address).chat('ops', { from: 'bob' });
  const toBob = listen(bob);
  await bob.send('');
  {
    await using ada = client(address).chat('ops', { from: 'ada' });
    await ada.send('bye');
  }
  await until(() => toBob.texts.length > 0, 'a goodbye');
  expect(toBob.texts).toEqual(['ada: bye']);
  await bob[Symbol.asyncDispose]();
  await toBob.ended;
});

/** Joins a room, and waits for its first message. */
async function waitingChat() {
  const { address } = await Subject.start();
  const states: string[] = [];
  const chat = client(address).chat('ops', {
    from: 'ada',
    onState: ({ name }) => void states.push(name),
  });
  const iterator = chat[Symbol.asyncIterator]();
  const next = iterator.next();
  await until(() => states.includes('joined'), 'the room');
  return { iterator, next, states };
}

test('a chat ends when its iterator returns, also while the next message is waited for', async () => {
  const { iterator, next, states } = await waitingChat();
  expect(await within(iterator.return!(), 'return()')).toMatchObject({ done: true });
  expect(await next).toMatchObject({ done: true });
  expect(states.at(-1)).toBe('ended');
});

test('a chat ends with an error that is thrown into its iteration, also while the next message is waited for', async () => {
  const { iterator, next, states } = await waitingChat();
  const error = new Error('mine');
  await expect(within(iterator.throw!(error), 'throw()')).rejects.toBe(error);
  expect(await next).toMatchObject({ done: true });
  expect(states.at(-1)).toBe('ended');
});

test('a room with an invalid name refuses to be joined', async () => {
  const { address } = await Subject.start();
  const chat = client(address).chat('no room', { from: 'ada' });
  await expect(listen(chat).ended).rejects.toMatchObject({ reason: 'TOPIC_INVALID' });
  const another = client(address).chat('no room', { from: 'ada' });
  await expect(
    (async () => {
      for (;;) await another.send('x');
    })(),
  ).rejects.toMatchObject({ reason: 'TOPIC_INVALID' });
});

test('a chat is joined once the server has taken its join, and a message is not sent before', async () => {
  const { address } = await Subject.start();
  const states: string[] = [];
  const chat = client(address).chat('no room', {
    from: 'ada',
    onState: ({ name }) => states.push(name),
  });
  await expect(chat.send('x')).rejects.toMatchObject({ reason: 'TOPIC_INVALID' });
  expect(states).not.toContain('joined');
  await chat.leave(); // send() has thrown the refusal.
});

test('to leave a chat throws what the server has refused of it, unless send() or the iteration has thrown that', async () => {
  const { address } = await Subject.start({ FEED_MAX_EVENT_BYTES: '1KiB' });
  const tooLarge = 'x'.repeat(2_000);
  // It waits for the server for ten seconds.
  await eventually(async () => {
    const chat = client(address).chat('ops', { from: 'ada' });
    await chat.send(tooLarge);
    await expect(chat.leave()).rejects.toMatchObject({ reason: 'MESSAGE_INVALID' });
  });

  const sends = async (): Promise<void> => {
    await using another = client(address).chat('ops', { from: 'ada' });
    await another.send(tooLarge);
  };
  await eventually(() => expect(sends()).rejects.toMatchObject({ reason: 'MESSAGE_INVALID' }));

  const listens = async (): Promise<void> => {
    await using another = client(address).chat('no room', { from: 'ada' });
    for await (const _ of another);
  };
  await expect(listens()).rejects.toMatchObject({ reason: 'TOPIC_INVALID' });
});

test.each([
  ['a room', (feed: Feed) => feed.chat('a\ud800', { from: 'ada' })],
  ['no room', (feed: Feed) => feed.chat(undefined as unknown as string, { from: 'ada' })],
  ['a name', (feed: Feed) => feed.chat('ops', { from: '\ud800' })],
  ['no name', (feed: Feed) => feed.chat('ops', {} as ChatOptions)],
])('%s that UTF-8 can not have is refused at once', (_, chat) => {
  expect(() => chat(client('127.0.0.1:1'))).toThrow(/is a text of whole Unicode characters$/);
});

test('a message that UTF-8 can not have is refused, and the chat goes on', async () => {
  const { address } = await Subject.start();
  const chat = client(address).chat('ops', { from: 'ada' });
  await expect(chat.send('a\ud800')).rejects.toThrow(/is a text of whole Unicode characters$/);
  await chat.send('b');
  await chat.leave();
});
