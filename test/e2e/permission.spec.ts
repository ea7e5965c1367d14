import { renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientWritableStream,
  type Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { describe, expect, onTestFinished, test } from 'vitest';
import { LiveCalls } from '../../src/feed/live-calls.js';
import type { Call } from '../../src/grpc/transport/index.js';
import type { ChatMessage, Event, UploadResult } from '../../src/gen/feed/v1/feed.js';
import { errorInfo } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { outcome } from '../support/raw-outcome.js';
import { type Running, runService, temporaryDirectory } from '../support/service.js';
import { bearer, Issuer } from '../support/tokens.js';
import { eventually, until, within } from '../support/wait.js';

/** The calls of a client that shows metadata. */
interface CallsWithMetadata {
  Watch(request: object, metadata: Metadata): ClientReadableStream<Event>;
  UploadEvents(
    metadata: Metadata,
    callback: (error: ServiceError | null, result: UploadResult) => void,
  ): ClientWritableStream<Partial<Event>>;
  Chat(metadata: Metadata): ClientDuplexStream<Partial<ChatMessage>, ChatMessage>;
}

interface Ending {
  readonly code: number;
  readonly reason?: string;
  readonly metadata?: Record<string, string>;
}

const endingOf = ({ code, metadata }: ServiceError): Ending => ({ code, ...errorInfo(metadata) });

/** Opens calls of one caller, and notes how they end. */
function callsOf({ client }: Running, token: string) {
  const calls = client as unknown as CallsWithMetadata;
  const metadata = bearer(token);
  return {
    watch(request: object) {
      const call = calls.Watch(request, metadata);
      const events: Event[] = [];
      call.on('data', (event: Event) => events.push(event));
      const began = new Promise((resolve) => call.on('metadata', resolve));
      const ended = new Promise<Ending>((resolve) =>
        call.on('error', (error: ServiceError) => resolve(endingOf(error))),
      );
      return { call, events, began, ended };
    },
    upload() {
      const ended = Promise.withResolvers<Ending | UploadResult>();
      const call = calls.UploadEvents(metadata, (error, result) =>
        ended.resolve(error ? endingOf(error) : result),
      );
      call.on('error', () => {});
      return { call, ended: ended.promise };
    },
    chat() {
      const call = calls.Chat(metadata);
      const messages: ChatMessage[] = [];
      call.on('data', (message: ChatMessage) => messages.push(message));
      const ended = new Promise<Ending>((resolve) =>
        call.on('error', (error: ServiceError) => resolve(endingOf(error))),
      );
      return { call, messages, ended };
    },
  };
}

describe('a token that expires', () => {
  test('ends its open calls within 5 s with TOKEN_EXPIRED and what it takes to go on, and no other call', async () => {
    const issuer = await Issuer.create();
    const service = await runService({ FEED_ENGINE: 'memory', ...issuer.settings() });
    const lasting = callsOf(service, await issuer.token({ sub: 'bob' })).watch({ topic: 't' });
    const began = Date.now();
    // Times in tokens are whole seconds. With the clock tolerance of 3 s, this one is refused after 14 to 15 s.
    const calls = callsOf(service, await issuer.token({ expiresIn: 12 }));
    const watch = calls.watch({ topic: 't' });
    const idle = calls.watch({ topic: 'other' });
    await within(Promise.all([lasting, watch, idle].map(({ began: one }) => one)), 'the headers');
    const upload = calls.upload();
    const chat = calls.chat();
    chat.call.write({ room: 'lobby' });
    upload.call.write({ topic: 't', body: 'one' });
    upload.call.write({ topic: 't', body: 'two' });
    await until(() => watch.events.length === 2, 'the events');
    await eventually(() => {
      const names = [...service.app.get(LiveCalls)].map(({ notes }) => notes.principal);
      expect(names.filter((name) => name === 'ann')).toHaveLength(4);
      expect(names.filter((name) => name === 'bob')).toHaveLength(1);
    });

    const ends = Promise.all([watch.ended, idle.ended, upload.ended, chat.ended]);
    const [watched, idled, uploaded, chatted] = await within(ends, 'the ends');
    expect(Date.now() - began).toBeGreaterThan(14_000);
    const expired = { code: status.UNAUTHENTICATED, reason: 'TOKEN_EXPIRED' };
    expect(watched).toMatchObject({ ...expired, metadata: { cursor: watch.events[1].cursor } });
    expect(idled).toMatchObject({ ...expired, metadata: { cursor: watch.events[1].cursor } });
    expect(uploaded).toMatchObject({ ...expired, metadata: { received: '2' } });
    expect(chatted).toMatchObject(expired);

    const { call, ended } = callsOf(service, await issuer.token()).upload();
    call.write({ topic: 't', body: 'three' });
    call.end();
    expect(await ended).toMatchObject({ received: 1 });
    const next = callsOf(service, await issuer.token()).watch({
      topic: 't',
      afterCursor: watched.metadata!.cursor,
    });
    await until(() => next.events.length === 1 && lasting.events.length === 3, 'the third event');
    expect(next.events[0].body).toBe('three');
    for (const one of [next, lasting]) one.call.cancel();
  });

  test('names the cursor of the last event that was sent whole, where a client reads slowly', async () => {
    const issuer = await Issuer.create();
    const service = await runService({ FEED_ENGINE: 'memory', ...issuer.settings() });
    const { call, ended } = callsOf(service, await issuer.token()).upload();
    const body = 'x'.repeat(500_000);
    for (let i = 0; i < 40; i++) call.write({ topic: 't', id: String(i), body });
    call.end();
    await ended;
    const endOfSlow = async () => {
      const slow = callsOf(service, await issuer.token({ expiresIn: 10 })).watch({
        topic: 't',
        position: 1,
      });
      await until(() => slow.events.length > 0, 'the first event');
      slow.call.pause();
      const live = [...service.app.get<Iterable<Call>>(LiveCalls)].at(-1)!;
      await until(() => live.signal.aborted, 'the end of the token');
      slow.call.resume();
      const { metadata } = await within(slow.ended, 'the end of the watch');
      return { events: slow.events, cursor: metadata?.cursor };
    };
    let end = await endOfSlow();
    // A client that reads nothing for 2 s more gets no status, and goes on as after any break: one that stood still.
    for (let left = 2; left > 0 && end.cursor === undefined; left--) end = await endOfSlow();
    expect(end.events.length).toBeLessThan(40);
    expect(end.events.map(({ cursor }) => cursor)).toContain(end.cursor);
  });
});

test('a stream of reflection ends with its token, too', async () => {
  const issuer = await Issuer.create();
  const service = await runService({
    FEED_ENGINE: 'memory',
    ...issuer.settings(),
    FEED_JWT_CLOCK_TOLERANCE: '0s',
  });
  const raw = await RawClient.connect(service.grpcAddress);
  onTestFinished(() => raw.close());
  const call = raw.open('', {
    ':path': '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    authorization: `Bearer ${await issuer.token({ expiresIn: 10 })}`,
  });
  let bytes = 0;
  call.stream.on('data', (chunk: Buffer) => (bytes += chunk.length));
  call.send(Buffer.from([0x3a, 0x01, 0x2a]));
  await until(() => bytes > 0, 'an answer');
  const trailers = await within(call.trailers, 'its end');
  expect(outcome(trailers!)).toMatchObject({
    code: status.UNAUTHENTICATED,
    reason: 'TOKEN_EXPIRED',
  });
});

const POLICY = `
rules:
  - principals: [ann]
    verbs: [watch, upload]
    topics: ["orders.>", audit]
  - principals: [bob, carol]
    verbs: [watch, chat]
    topics: ["*"]
`;

/** Starts a service with a policy, which can be replaced as Kubernetes does it. */
async function withPolicy(policy: string) {
  const issuer = await Issuer.create();
  const directory = temporaryDirectory();
  const file = join(directory, 'policy.yaml');
  let version = 0;
  const publish = (text: string): void => {
    const target = `policy.${++version}`;
    writeFileSync(join(directory, target), text);
    symlinkSync(target, join(directory, 'next'));
    renameSync(join(directory, 'next'), file);
  };
  publish(policy);
  const settings = { FEED_ENGINE: 'memory', ...issuer.settings(), FEED_POLICY_FILE: file };
  const service = await runService(settings);
  const as = async (sub: string) => callsOf(service, await issuer.token({ sub }));
  return { service, publish, as };
}

const forbidden = { code: status.PERMISSION_DENIED, reason: 'TOPIC_FORBIDDEN' };

describe('who may do what', () => {
  test('is what the policy says, for each topic and verb', async () => {
    const { as } = await withPolicy(POLICY);
    const [ann, bob, dave] = [await as('ann'), await as('bob'), await as('dave')];

    const allowed = ann.watch({ topic: 'orders.created' });
    await within(allowed.began, 'the headers');
    for (const [who, topic] of [
      [ann, 'orders'],
      [ann, 'secret'],
      [bob, 'orders.created'],
      [dave, 'audit'],
    ] as const)
      expect(await who.watch({ topic }).ended).toMatchObject(forbidden);
    // An invalid topic is no matter of permission.
    expect(await ann.watch({ topic: 'a b' }).ended).toMatchObject({ reason: 'TOPIC_INVALID' });

    for (const who of [bob, dave])
      expect(await who.upload().ended).toMatchObject({ ...forbidden, metadata: { received: '0' } });

    const chat = bob.chat();
    chat.call.write({ text: 'hi' });
    await until(() => chat.messages.length === 1, 'the echo');
    chat.call.write({ room: 'a.b' });
    expect(await chat.ended).toMatchObject(forbidden);
    // The echo needs chat in any room.
    expect(await ann.chat().ended).toMatchObject(forbidden);
    allowed.call.cancel();
  });

  test('is asked for each topic of a watch, and for a pattern of all that it may match', async () => {
    const { as, publish } = await withPolicy(POLICY);
    const [ann, bob] = [await as('ann'), await as('bob')];
    const allowed = [
      ann.watch({ topics: ['orders.*.paid', 'orders.>', 'audit'] }),
      bob.watch({ topics: ['*'] }),
      bob.watch({ topics: ['*', 'audit'] }),
    ];
    for (const watch of allowed) await within(watch.began, 'the headers');
    for (const [who, topics] of [
      [ann, ['>']],
      [ann, ['orders.>', '*']],
      [ann, ['*.>']],
      [ann, ['audit', 'secret']],
      [bob, ['>']],
      [bob, ['*.*']],
    ] as const)
      expect(await who.watch({ topics }).ended).toMatchObject(forbidden);

    publish(POLICY.replace('"orders.>", audit', '"orders.*", audit'));
    expect(await within(allowed[0].ended, 'the end of the watch')).toMatchObject({
      ...forbidden,
      metadata: { cursor: expect.any(String) },
    });
    for (const watch of allowed.slice(1)) watch.call.cancel();
  });

  test('ends an upload at its first forbidden event, with the index and what is stored', async () => {
    const { as } = await withPolicy(POLICY);
    const { call, ended } = (await as('ann')).upload();
    for (const topic of ['audit', 'orders.a', 'audit', 'secret', 'audit'])
      call.write({ topic, body: topic });
    expect(await ended).toMatchObject({ ...forbidden, metadata: { index: '3', received: '3' } });
    const watch = (await as('bob')).watch({ topic: 'audit', position: 1 });
    await until(() => watch.events.length === 2, 'what came before');
    await sleep(50); // Nothing follows.
    expect(watch.events).toHaveLength(2);
    watch.call.cancel();
  });

  test('an event that is forbidden and invalid is reported as invalid', async () => {
    const { as } = await withPolicy(POLICY);
    const { call, ended } = (await as('ann')).upload();
    call.write({ topic: 'secret key', body: '' });
    expect(await ended).toMatchObject({ reason: 'EVENT_INVALID', metadata: { index: '0' } });
  });

  test('a change ends within 5 s the calls that it no longer allows, and no other', async () => {
    const { as, publish, service } = await withPolicy(POLICY);
    const [ann, bob] = [await as('ann'), await as('bob')];
    const audit = ann.watch({ topic: 'audit' });
    const orders = ann.watch({ topic: 'orders.a' });
    await within(Promise.all([audit.began, orders.began]), 'the headers');
    const upload = ann.upload();
    upload.call.write({ topic: 'audit', body: 'one' });
    const allowedUpload = ann.upload();
    allowedUpload.call.write({ topic: 'orders.a', body: 'one' });
    const chat = bob.chat();
    chat.call.write({ room: 'lobby' });
    chat.call.write({ room: 'kitchen' });
    await until(() => audit.events.length === 1 && orders.events.length === 1, 'the events');
    await until(() => [...service.app.get(LiveCalls)].length === 5, 'five calls');

    publish(POLICY.replace(', audit', '').replace('["*"]', '[lobby, audit]'));
    const [audited, uploaded, chatted] = await within(
      Promise.all([audit.ended, upload.ended, chat.ended]),
      'the ends',
    );
    expect(audited).toMatchObject(forbidden);
    expect(uploaded).toMatchObject({ ...forbidden, metadata: { received: '1' } });
    expect(chatted).toMatchObject(forbidden);

    allowedUpload.call.write({ topic: 'orders.a', body: 'two' });
    await until(() => orders.events.length === 2, 'the second order');
    allowedUpload.call.write({ topic: 'audit', body: 'three' });
    expect(await allowedUpload.ended).toMatchObject({
      ...forbidden,
      metadata: { index: '2', received: '2' },
    });
    orders.call.cancel();
  });

  test('a bad policy is refused with its line, and the last good one stays', async () => {
    const { as, publish, service } = await withPolicy(POLICY);
    const ann = await as('ann');
    const watch = ann.watch({ topic: 'audit' });
    await within(watch.began, 'the headers');
    publish(POLICY.replace('upload', 'uplaod'));
    const line = await eventually(() => {
      const found = service.log.find(({ problem }) => problem !== undefined);
      expect(found).toBeDefined();
      return found;
    });
    expect(line!.problem).toContain('line 4: rules[0].verbs[1]: must be one of');
    const upload = ann.upload();
    upload.call.write({ topic: 'audit' });
    upload.call.end();
    expect(await upload.ended).toMatchObject({ received: 1 });
    await until(() => watch.events.length === 1, 'the event');
    watch.call.cancel();
  });
});

describe('in a chat', () => {
  test('the server says who speaks, and keeps all else of a message', async () => {
    const { as } = await withPolicy(POLICY);
    const [bob, carol] = [(await as('bob')).chat(), (await as('carol')).chat()];
    bob.call.write({ room: 'lobby' });
    bob.call.write({ text: 'in?' });
    await until(() => bob.messages.length === 1, 'the echo');
    carol.call.write({ from: 'bob', text: 'I am bob', room: 'lobby' });
    carol.call.write({ text: 'nameless', room: 'lobby' });
    await until(() => bob.messages.length === 3, 'two messages');
    expect(bob.messages.slice(1)).toEqual([
      { from: 'carol', text: 'I am bob', room: 'lobby' },
      { from: 'carol', text: 'nameless', room: 'lobby' },
    ]);
    for (const { call } of [bob, carol]) call.end();
  });
});
