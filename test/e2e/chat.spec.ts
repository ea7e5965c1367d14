import { setTimeout as sleep } from 'node:timers/promises';
import { status, type StatusObject } from '@grpc/grpc-js';
import { describe, expect, test } from 'vitest';
import type { ChatMessage } from '../../src/gen/feed/v1/feed.js';
import { Rooms } from '../../src/broker/rooms.js';
import { Chats } from '../../src/feed/chat.js';
import { OpenWork } from '../../src/feed/open-work.js';
import { frame } from '../../src/wire/frames.js';
import { codec, connect, errorInfo, failure, type FeedClient } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { runService } from '../support/service.js';
import { until, within } from '../support/wait.js';

describe('Chat', () => {
  test('answers each message with its echo, in order, and ends when the client half-closes', async () => {
    const { client } = await runService({ FEED_ENGINE: 'memory' });
    const call = client.Chat();
    const answers: ChatMessage[] = [];
    call.on('data', (message: ChatMessage) => answers.push(message));
    for (let i = 0; i < 1000; i++)
      call.write({ from: 'me', text: `message ${i} ${'ü'.repeat(i % 50)}` });
    call.end();
    const ended = new Promise((resolve) => call.on('status', ({ code }) => resolve(code)));
    expect(await ended).toBe(status.OK);
    expect(answers).toEqual(
      Array.from({ length: 1000 }, (_, i) => ({
        from: 'server',
        text: `echo: message ${i} ${'ü'.repeat(i % 50)}`,
        room: '',
      })),
    );
  });

  test('of a message that is none ends with its status', async () => {
    const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    for (const bad of [
      Buffer.from([0x12, 0x02, 0xff, 0xff]),
      Buffer.from([0x12, 0x05]),
      Buffer.from([0x10, 0x01]),
    ]) {
      const raw = await RawClient.connect(grpcAddress);
      const call = raw.open('Chat').drop().send(bad);
      expect((await call.trailers)?.['grpc-status']).toBe(String(status.INVALID_ARGUMENT));
      raw.close();
    }
  });
});

/** A member of a room, and what it hears. */
async function enter(client: FeedClient, room: string) {
  const call = client.Chat();
  const heard: string[] = [];
  const ended = new Promise<StatusObject>((resolve) => call.on('status', resolve));
  call.on('error', () => {});
  call.on('data', ({ text }: ChatMessage) => heard.push(text));
  call.write({ room });
  // An echo comes only after the message before it was taken.
  call.write({ text: 'in?' });
  await until(() => heard.length === 1, 'the echo');
  heard.length = 0;
  return { call, heard, ended, say: (text: string) => call.write({ from: 'me', room, text }) };
}

describe('Chat rooms', () => {
  test('who is reset while its answers wait leaves nothing behind (node waits for them to be read)', async () => {
    const { grpcAddress, app } = await runService({ FEED_ENGINE: 'memory' });
    const raw = await RawClient.connect(grpcAddress);
    const call = raw.open('Chat'); // never reads
    const message = codec.chatMessage.serialize({ text: 'x'.repeat(50_000) });
    for (let i = 0; i < 20; i++) call.send(message);
    await until(() => call.isFull, 'answers that wait');
    expect(app.get(Chats).open).toBe(1);
    call.stream.close(0);
    await until(() => app.get(Chats).open === 0, 'its end');
    raw.close();
  });

  test('answers what came before a bad message', async () => {
    const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    const raw = await RawClient.connect(grpcAddress);
    const call = raw.open('Chat');
    let answered = 0;
    call.stream.on('data', (chunk: Buffer) => (answered += chunk.length));
    const good = frame(codec.chatMessage.serialize({ text: 'a' }));
    call.stream.write(
      Buffer.concat([good, good, frame(codec.chatMessage.serialize({ room: 'a b', text: 'c' }))]),
    );
    expect((await call.trailers)?.['grpc-status']).toBe(String(status.INVALID_ARGUMENT));
    await call.closed; // and all is read
    expect(answered).toBe(2 * 22);
    raw.close();
  });

  test('a message goes to every other member, whole, and to nobody else', async () => {
    const { client } = await runService({ FEED_ENGINE: 'memory' });
    const [a, b, c, other] = await Promise.all([
      enter(client, 'lobby'),
      enter(client, 'lobby'),
      enter(client, 'lobby'),
      enter(client, 'elsewhere'),
    ]);
    const whole = new Promise((resolve) => b.call.once('data', resolve));
    a.say('hello');
    expect(await whole).toEqual({ from: 'me', text: 'hello', room: 'lobby' });
    await until(() => c.heard.length === 1, 'c to hear');
    await sleep(50); // for what nobody should hear
    expect([a.heard, b.heard, c.heard, other.heard]).toEqual([[], ['hello'], ['hello'], []]);
    for (const { call } of [a, b, c, other]) call.cancel();
  });

  test('all hear one order', async () => {
    const { client, grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    const second = connect(grpcAddress);
    const listeners = await Promise.all([
      enter(client, 'lobby'),
      enter(second, 'lobby'),
      enter(client, 'lobby'),
    ]);
    const speakers = await Promise.all([enter(client, 'lobby'), enter(second, 'lobby')]);
    for (let i = 0; i < 300; i++) {
      speakers[0].say(`0-${i}`);
      speakers[1].say(`1-${i}`);
      if (i % 20 === 0) await sleep(1);
    }
    await until(() => listeners.every(({ heard }) => heard.length === 600), 'all to hear all');
    expect(listeners[1].heard).toEqual(listeners[0].heard);
    expect(listeners[2].heard).toEqual(listeners[0].heard);
    for (const speaker of ['0', '1']) {
      const theirs = listeners[0].heard.filter((text) => text.startsWith(speaker));
      expect(theirs).toEqual(Array.from({ length: 300 }, (_, i) => `${speaker}-${i}`));
    }
    for (const { call } of [...listeners, ...speakers]) call.cancel();
    second.close();
  });

  test('who half-closes leaves, gets what was waiting, and ends OK', async () => {
    const { client, app } = await runService({ FEED_ENGINE: 'memory' });
    const [a, b] = [await enter(client, 'lobby'), await enter(client, 'lobby')];
    a.say('one');
    await until(() => b.heard.length === 1, 'the first');
    b.call.end();
    expect((await b.ended).code).toBe(status.OK);
    expect(app.get(Rooms).seats).toBe(1);
    a.say('two');
    await sleep(50); // for what it should not hear
    expect(b.heard).toEqual(['one']);
    a.call.cancel();
    await until(() => app.get(Rooms).seats === 0, 'an empty room');
  });

  test('a member that does not read is ended with TOO_SLOW; the others hear everything', async () => {
    const { client, grpcAddress, log, app } = await runService({ FEED_ENGINE: 'memory' });
    const [speaker, listener] = [await enter(client, 'lobby'), await enter(client, 'lobby')];
    const raw = await RawClient.connect(grpcAddress);
    const stalled = raw.open('Chat');
    stalled.send(codec.chatMessage.serialize({ room: 'lobby' }));
    await until(() => app.get(Rooms).seats === 3, 'three members');
    const text = 'x'.repeat(2000);
    for (let i = 0; i < 2000; i++) {
      if (!speaker.call.write({ room: 'lobby', text: `${i} ${text}` })) {
        await new Promise((resolve) => speaker.call.once('drain', resolve));
      }
    }
    await until(
      () => listener.heard.length === 2000,
      () => `the listener to hear all: it has heard ${listener.heard.length}`,
    );
    await until(
      () => log.some(({ reason }) => reason === 'TOO_SLOW'),
      'the end of the stalled one',
    );
    expect(app.get(Rooms).seats).toBe(2);
    await within(stalled.closed, 'a reset');
    expect(stalled.stream.rstCode).toBe(11); // ENHANCE_YOUR_CALM, which clients take for RESOURCE_EXHAUSTED
    speaker.call.cancel();
    listener.call.cancel();
    raw.close();
  });

  test('twenty that speak in the same instant end nobody who reads', async () => {
    const { client, grpcAddress, log, app } = await runService({ FEED_ENGINE: 'memory' });
    const listener = await enter(client, 'lobby');
    const raws = await Promise.all(
      Array.from({ length: 20 }, () => RawClient.connect(grpcAddress)),
    );
    const speakers = raws.map((raw) => raw.open('Chat').drop());
    for (const speaker of speakers) speaker.send(codec.chatMessage.serialize({ room: 'lobby' }));
    await until(() => app.get(Rooms).seats === 21, 'all members');
    const message = frame(codec.chatMessage.serialize({ room: 'lobby', text: 'me first' }));
    const messages = Buffer.concat(Array.from({ length: 32 }, () => message));
    for (const { stream } of speakers) stream.write(messages);
    await until(() => listener.heard.length === 20 * 32, 'all to be heard');
    expect(log.filter(({ reason }) => reason === 'TOO_SLOW')).toEqual([]);
    expect(app.get(Rooms).seats).toBe(21);
    listener.call.cancel();
    for (const raw of raws) raw.close();
  });

  test('a slow member that reads on learns that it was TOO_SLOW, behind what it was sent; nobody waited for it', async () => {
    const { client, grpcAddress, log, app } = await runService({ FEED_ENGINE: 'memory' });
    const other = connect(grpcAddress);
    const [speaker, listener, slow] = await Promise.all([
      enter(client, 'lobby'),
      enter(client, 'lobby'),
      enter(other, 'lobby'),
    ]);
    slow.call.pause();
    const said = Array.from({ length: 600 }, (_, i) => `${i} ${'x'.repeat(2000)}`);
    for (const text of said) speaker.say(text);
    await until(() => log.some(({ reason }) => reason === 'TOO_SLOW'), 'the end of the slow one');
    expect(app.get(Rooms).seats).toBe(2);
    await until(() => listener.heard.length === said.length, 'the listener to hear all');
    expect(listener.heard).toEqual(said);
    slow.call.resume();
    const { code, metadata } = await slow.ended;
    expect(code).toBe(status.RESOURCE_EXHAUSTED);
    expect(errorInfo(metadata)?.reason).toBe('TOO_SLOW');
    expect(slow.heard.length).toBeLessThan(said.length);
    expect(slow.heard).toEqual(said.slice(0, slow.heard.length));
    for (const { call } of [speaker, listener]) call.cancel();
    other.close();
  });

  test('who half-closes leaves every room at once, also while it reads nothing, and gets what was waiting once it reads', async () => {
    const { client, grpcAddress, app } = await runService({ FEED_ENGINE: 'memory' });
    const other = connect(grpcAddress);
    const [speaker, leaving] = [await enter(client, 'lobby'), await enter(other, 'lobby')];
    leaving.call.write({ room: 'hall' });
    await until(() => app.get(Rooms).seats === 3, 'two rooms');
    leaving.call.pause();
    // More than the client's window takes, and less than is too much.
    const said = Array.from({ length: 120 }, (_, i) => `${i} ${'x'.repeat(2000)}`);
    for (const text of said) speaker.say(text);
    speaker.call.write({ text: 'said?' });
    await until(() => speaker.heard.length === 1, 'the echo');
    leaving.call.end();
    await until(() => app.get(Rooms).seats === 1, 'the speaker alone');
    speaker.say('too late');
    speaker.call.write({ text: 'said?' });
    await until(() => speaker.heard.length === 2, 'the second echo');
    leaving.call.resume();
    expect((await leaving.ended).code).toBe(status.OK);
    expect(leaving.heard).toEqual(said);
    speaker.call.cancel();
    other.close();
  });

  test('a bad room name ends the chat', async () => {
    const { client } = await runService({ FEED_ENGINE: 'memory' });
    const call = client.Chat();
    call.write({ room: 'a b', text: 'hello' });
    const error = await failure(call);
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(errorInfo(error.metadata)?.reason).toBe('TOPIC_INVALID');
  });

  test('a thousand members hear two that speak at the same time in one order, each message once', async () => {
    const { client, grpcAddress, app } = await runService({ FEED_ENGINE: 'memory' });
    const second = connect(grpcAddress);
    const members = await Promise.all(
      Array.from({ length: 1000 }, (_, i) => enter(i % 2 === 0 ? client : second, 'lobby')),
    );
    const [a, b, ...listeners] = members;
    const said = (speaker: string) => Array.from({ length: 30 }, (_, i) => `${speaker}-${i}`);
    for (let i = 0; i < 30; i++) {
      a.say(said('a')[i]);
      b.say(said('b')[i]);
      if (i % 5 === 0) await sleep(1);
    }
    await until(
      () =>
        listeners.every(({ heard }) => heard.length >= 60) &&
        [a, b].every(({ heard }) => heard.length >= 30),
      'all to hear all',
      40_000,
    );
    const [{ heard }] = listeners;
    expect(heard.filter((text) => text.startsWith('a'))).toEqual(said('a'));
    expect(heard.filter((text) => text.startsWith('b'))).toEqual(said('b'));
    const order = heard.join();
    expect(listeners.filter((one) => one.heard.join() !== order)).toEqual([]);
    expect([a.heard, b.heard]).toEqual([said('b'), said('a')]);
    for (const { call } of members) call.cancel();
    await until(() => app.get(Rooms).seats === 0, 'an empty room');
    second.close();
  });

  test('one of ten thousand rooms hears each message once, and leaves them all', async () => {
    const { client, grpcAddress, app } = await runService({ FEED_ENGINE: 'memory' });
    const second = connect(grpcAddress);
    const [a, b] = await Promise.all([enter(client, 'room-0'), enter(second, 'room-0')]);
    const rooms = Array.from({ length: 10_000 }, (_, i) => `room-${i}`);
    const members = (): number => app.get(OpenWork).counts.members;
    for (const room of rooms) a.call.write({ room });
    await until(() => members() === 10_001, 'the first in all rooms');
    const whole: ChatMessage[] = [];
    a.call.on('data', (message: ChatMessage) => whole.push(message));
    for (const room of rooms) b.call.write({ room, text: `in ${room}` });
    await until(
      () => whole.length >= 10_000,
      () => `a message of each room: there are ${whole.length}`,
      40_000,
    );
    expect(members()).toBe(20_000);
    for (const { call } of [a, b]) call.end();
    expect((await Promise.all([a.ended, b.ended])).map(({ code }) => code)).toEqual([0, 0]);
    expect(members()).toBe(0);
    expect(whole.map(({ room }) => room).toSorted()).toEqual(rooms.toSorted());
    expect(whole.filter(({ room, text }) => text !== `in ${room}`)).toEqual([]);
    expect(b.heard).toEqual([]);
    second.close();
  });

  test('who joins the 16,385th room is refused with TOO_MANY_ROOMS, and leaves the others', async () => {
    const { client, app } = await runService({ FEED_ENGINE: 'memory' });
    const { call, ended, heard } = await enter(client, 'room-0');
    for (let i = 0; i < 16_384; i++) call.write({ room: `room-${i}` });
    call.write({ text: 'all?' });
    await until(() => heard.length === 1, 'the echo');
    expect(app.get(Rooms).seats).toBe(16_384);
    call.write({ room: 'room-7', text: 'to nobody' }); // it is there already
    call.write({ text: 'still?' });
    await until(() => heard.length === 2, 'the second echo');
    call.write({ room: 'one-more' });
    const { code, metadata } = await ended;
    expect(code).toBe(status.RESOURCE_EXHAUSTED);
    expect(errorInfo(metadata)?.reason).toBe('TOO_MANY_ROOMS');
    expect(app.get(Rooms).seats).toBe(0);
  });
});
