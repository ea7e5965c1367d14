import { setTimeout as sleep } from 'node:timers/promises';
import { type ServiceError, status, type StatusObject } from '@grpc/grpc-js';
import { describe, expect, test } from 'vitest';
import type { ChatMessage } from '../../src/gen/feed/v1/feed.js';
import { Rooms } from '../../src/broker/rooms.js';
import { Chats } from '../../src/feed/chat.js';
import { OpenWork } from '../../src/feed/open-work.js';
import { frame } from '../../src/wire/frames.js';
import { codec, connect, errorInfo, failure, type FeedClient } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { runService, ServiceProcess } from '../support/service.js';
import { testTls } from '../support/tls.js';
import { until, upToThrice, within } from '../support/wait.js';

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

  test('ends with INVALID_ARGUMENT at bytes that are no message', async () => {
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

/** Joins a room, and collects the texts that the other members send to it. */
async function enter(client: FeedClient, room: string) {
  const call = client.Chat();
  const received: string[] = [];
  const ended = new Promise<StatusObject>((resolve) => call.on('status', resolve));
  call.on('error', () => {});
  call.on('data', ({ text }: ChatMessage) => received.push(text));
  call.write({ room });
  // The echo comes only after the server has taken the message before it.
  call.write({ text: 'in?' });
  await until(() => received.length === 1, 'the echo');
  received.length = 0;
  return { call, received, ended, send: (text: string) => call.write({ from: 'me', room, text }) };
}

describe('Chat rooms', () => {
  test('a chat that its client resets while answers wait is released at once, though node waits until they are read', async () => {
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

  test('a chat answers the messages before a bad one', async () => {
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
    await call.closed; // by now, all answers are read
    expect(answered).toBe(2 * 22);
    raw.close();
  });

  test('a message goes to every other member, with all its fields, and to nobody else', async () => {
    const { client } = await runService({ FEED_ENGINE: 'memory' });
    const [a, b, c, other] = await Promise.all([
      enter(client, 'lobby'),
      enter(client, 'lobby'),
      enter(client, 'lobby'),
      enter(client, 'elsewhere'),
    ]);
    const whole = new Promise((resolve) => b.call.once('data', resolve));
    a.send('hello');
    // With client certificates, the service says who it is.
    const from = testTls ? 'orders' : 'me';
    expect(await whole).toEqual({ from, text: 'hello', room: 'lobby' });
    await until(() => c.received.length === 1, 'c to receive it');
    await sleep(50); // time for messages that must not come
    expect([a.received, b.received, c.received, other.received]).toEqual([
      [],
      ['hello'],
      ['hello'],
      [],
    ]);
    for (const { call } of [a, b, c, other]) call.cancel();
  });

  test('all members receive the messages in one order', async () => {
    const { client, grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    const second = connect(grpcAddress);
    const receivers = await Promise.all([
      enter(client, 'lobby'),
      enter(second, 'lobby'),
      enter(client, 'lobby'),
    ]);
    const senders = await Promise.all([enter(client, 'lobby'), enter(second, 'lobby')]);
    for (let i = 0; i < 300; i++) {
      senders[0].send(`0-${i}`);
      senders[1].send(`1-${i}`);
      if (i % 20 === 0) await sleep(1);
    }
    await until(
      () => receivers.every(({ received }) => received.length === 600),
      'all to receive all',
    );
    expect(receivers[1].received).toEqual(receivers[0].received);
    expect(receivers[2].received).toEqual(receivers[0].received);
    for (const sender of ['0', '1']) {
      const theirs = receivers[0].received.filter((text) => text.startsWith(sender));
      expect(theirs).toEqual(Array.from({ length: 300 }, (_, i) => `${sender}-${i}`));
    }
    for (const { call } of [...receivers, ...senders]) call.cancel();
    second.close();
  });

  test('a member that half-closes leaves the room, gets what was waiting for it, and ends with OK', async () => {
    const { client, app } = await runService({ FEED_ENGINE: 'memory' });
    const [a, b] = [await enter(client, 'lobby'), await enter(client, 'lobby')];
    a.send('one');
    await until(() => b.received.length === 1, 'the first');
    b.call.end();
    expect((await b.ended).code).toBe(status.OK);
    expect(app.get(Rooms).seats).toBe(1);
    a.send('two');
    await sleep(50); // time for a message that must not come
    expect(b.received).toEqual(['one']);
    a.call.cancel();
    await until(() => app.get(Rooms).seats === 0, 'an empty room');
  });

  test('a member that does not read is ended with TOO_SLOW; the others receive everything', async () => {
    const { client, grpcAddress, log, app } = await runService({ FEED_ENGINE: 'memory' });
    const [sender, receiver] = [await enter(client, 'lobby'), await enter(client, 'lobby')];
    const raw = await RawClient.connect(grpcAddress);
    const stalled = raw.open('Chat');
    stalled.send(codec.chatMessage.serialize({ room: 'lobby' }));
    await until(() => app.get(Rooms).seats === 3, 'three members');
    const text = 'x'.repeat(2000);
    for (let i = 0; i < 2000; i++) {
      if (!sender.call.write({ room: 'lobby', text: `${i} ${text}` })) {
        await new Promise((resolve) => sender.call.once('drain', resolve));
      }
    }
    await until(
      () => receiver.received.length === 2000,
      () => `the receiver to receive all: it has received ${receiver.received.length}`,
    );
    await until(
      () => log.some(({ reason }) => reason === 'TOO_SLOW'),
      'the end of the stalled one',
    );
    expect(app.get(Rooms).seats).toBe(2);
    await within(stalled.closed, 'a reset');
    expect(stalled.stream.rstCode).toBe(11); // ENHANCE_YOUR_CALM, which clients take for RESOURCE_EXHAUSTED
    sender.call.cancel();
    receiver.call.cancel();
    raw.close();
  });

  test('twenty members that send at the same moment do not make a member that reads TOO_SLOW', async () => {
    const { client, grpcAddress, log, app } = await runService({ FEED_ENGINE: 'memory' });
    const receiver = await enter(client, 'lobby');
    const raws = await Promise.all(
      Array.from({ length: 20 }, () => RawClient.connect(grpcAddress)),
    );
    const senders = raws.map((raw) => raw.open('Chat').drop());
    for (const sender of senders) sender.send(codec.chatMessage.serialize({ room: 'lobby' }));
    await until(() => app.get(Rooms).seats === 21, 'all members');
    const message = frame(codec.chatMessage.serialize({ room: 'lobby', text: 'me first' }));
    const messages = Buffer.concat(Array.from({ length: 32 }, () => message));
    for (const { stream } of senders) stream.write(messages);
    await until(() => receiver.received.length === 20 * 32, 'all to be received');
    expect(log.filter(({ reason }) => reason === 'TOO_SLOW')).toEqual([]);
    expect(app.get(Rooms).seats).toBe(21);
    receiver.call.cancel();
    for (const raw of raws) raw.close();
  });

  test('a slow member that reads on gets TOO_SLOW after the messages that it was sent; nobody waited for it', async () => {
    const sent = Array.from({ length: 600 }, (_, i) => `${i} ${'x'.repeat(2000)}`);
    const endOfSlow = async () => {
      const { client, grpcAddress, log, app } = await runService({ FEED_ENGINE: 'memory' });
      const other = connect(grpcAddress);
      const [sender, receiver, slow] = await Promise.all([
        enter(client, 'lobby'),
        enter(client, 'lobby'),
        enter(other, 'lobby'),
      ]);
      slow.call.pause();
      for (const text of sent) sender.send(text);
      await until(() => log.some(({ reason }) => reason === 'TOO_SLOW'), 'the end of the slow one');
      expect(app.get(Rooms).seats).toBe(2);
      await until(() => receiver.received.length === sent.length, 'the receiver to receive all');
      expect(receiver.received).toEqual(sent);
      slow.call.resume();
      const { code, metadata } = await slow.ended;
      for (const { call } of [sender, receiver]) call.cancel();
      other.close();
      return { code, reason: errorInfo(metadata)?.reason, received: slow.received };
    };
    // A member that reads nothing for 2 s more gets no reason: one that stood still.
    const { code, reason, received } = await upToThrice(
      endOfSlow,
      (end) => end.reason !== undefined,
    );
    expect(code).toBe(status.RESOURCE_EXHAUSTED);
    expect(reason).toBe('TOO_SLOW');
    expect(received.length).toBeLessThan(sent.length);
    expect(received).toEqual(sent.slice(0, received.length));
  });

  test('a member that half-closes while it reads nothing leaves every room at once, and gets what was waiting once it reads', async () => {
    const { client, grpcAddress, app } = await runService({ FEED_ENGINE: 'memory' });
    const other = connect(grpcAddress);
    const [sender, leaving] = [await enter(client, 'lobby'), await enter(other, 'lobby')];
    leaving.call.write({ room: 'hall' });
    await until(() => app.get(Rooms).seats === 3, 'two rooms');
    leaving.call.pause();
    // This is more than the client's receive window takes, and less than makes a member TOO_SLOW.
    const sent = Array.from({ length: 120 }, (_, i) => `${i} ${'x'.repeat(2000)}`);
    for (const text of sent) sender.send(text);
    sender.call.write({ text: 'sent?' });
    await until(() => sender.received.length === 1, 'the echo');
    leaving.call.end();
    await until(() => app.get(Rooms).seats === 1, 'the sender alone');
    sender.send('too late');
    sender.call.write({ text: 'sent?' });
    await until(() => sender.received.length === 2, 'the second echo');
    leaving.call.resume();
    expect((await leaving.ended).code).toBe(status.OK);
    expect(leaving.received).toEqual(sent);
    sender.call.cancel();
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

  test('a thousand members receive the messages of two members in one order, each once', async () => {
    const { client, grpcAddress, app } = await runService({ FEED_ENGINE: 'memory' });
    const second = connect(grpcAddress);
    const members = await Promise.all(
      Array.from({ length: 1000 }, (_, i) => enter(i % 2 === 0 ? client : second, 'lobby')),
    );
    const [a, b, ...receivers] = members;
    const sent = (sender: string) => Array.from({ length: 30 }, (_, i) => `${sender}-${i}`);
    for (let i = 0; i < 30; i++) {
      a.send(sent('a')[i]);
      b.send(sent('b')[i]);
      if (i % 5 === 0) await sleep(1);
    }
    await until(
      () =>
        receivers.every(({ received }) => received.length >= 60) &&
        [a, b].every(({ received }) => received.length >= 30),
      'all to receive all',
      40_000,
    );
    const [{ received }] = receivers;
    expect(received.filter((text) => text.startsWith('a'))).toEqual(sent('a'));
    expect(received.filter((text) => text.startsWith('b'))).toEqual(sent('b'));
    const order = received.join();
    expect(receivers.filter((one) => one.received.join() !== order)).toEqual([]);
    expect([a.received, b.received]).toEqual([sent('b'), sent('a')]);
    for (const { call } of members) call.cancel();
    await until(() => app.get(Rooms).seats === 0, 'an empty room');
    second.close();
  });

  test('fifty members that read keep up with a burst, though they share one connection', async () => {
    const service = await ServiceProcess.start({ FEED_ENGINE: 'memory' });
    let bursts = 0;
    /** Resolves with the reason of the first member that ended, or with undefined once all have the burst. */
    const burst = async (): Promise<string | undefined> => {
      const room = `r${bursts++}`;
      const sender = service.connect().Chat();
      sender.on('error', () => {});
      const client = service.connect();
      const reasons: (string | undefined)[] = [];
      const members = Array.from({ length: 50 }, () => {
        const call = client.Chat();
        const received: string[] = [];
        call.on('data', ({ text }: ChatMessage) => received.push(text));
        call.on('error', (error: ServiceError) =>
          reasons.push(errorInfo(error.metadata)?.reason ?? error.message),
        );
        call.write({ room });
        return received;
      });
      // A room does not say who has joined: one that receives has.
      while (reasons.length === 0 && members.some((received) => received.length === 0)) {
        sender.write({ room, text: 'who is here' });
        await sleep(20);
      }
      const texts = Array.from({ length: 300 }, (_, i) => `${i}`.padStart(100, '.'));
      for (const text of texts) sender.write({ room, text });
      await until(
        () => reasons.length > 0 || members.every((received) => received.at(-1) === texts.at(-1)),
        () => `all to have the burst: ${members.map((received) => received.length).join()}`,
      );
      sender.cancel();
      if (reasons.length > 0) return reasons[0];
      for (const received of members) expect(received.slice(-300)).toEqual(texts);
      return undefined;
    };
    // The burst is more than waits for a member: one whose process stands still is rightly too slow.
    expect(await upToThrice(burst, (ended) => ended !== 'TOO_SLOW')).toBeUndefined();
  });

  test('a member of ten thousand rooms receives each message once, and leaves all rooms when it half-closes', async () => {
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
    expect(b.received).toEqual([]);
    second.close();
  });

  test('a chat that joins its 16,385th room is ended with TOO_MANY_ROOMS, and leaves the others', async () => {
    const { client, app } = await runService({ FEED_ENGINE: 'memory' });
    const { call, ended, received } = await enter(client, 'room-0');
    for (let i = 0; i < 16_384; i++) call.write({ room: `room-${i}` });
    call.write({ text: 'all?' });
    await until(() => received.length === 1, 'the echo');
    expect(app.get(Rooms).seats).toBe(16_384);
    call.write({ room: 'room-7', text: 'to nobody' }); // a room that it has joined already
    call.write({ text: 'still?' });
    await until(() => received.length === 2, 'the second echo');
    call.write({ room: 'one-more' });
    const { code, metadata } = await ended;
    expect(code).toBe(status.RESOURCE_EXHAUSTED);
    expect(errorInfo(metadata)?.reason).toBe('TOO_MANY_ROOMS');
    expect(app.get(Rooms).seats).toBe(0);
  });
});
