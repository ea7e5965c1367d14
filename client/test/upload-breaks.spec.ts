import { setTimeout as sleep } from 'node:timers/promises';
import { queryObjects } from 'node:v8';
import { expect, test } from 'vitest';
import { within } from '../../test/support/wait.js';
import { FaultProxy } from './fault-proxy.js';
import {
  type Answer,
  beginUpload,
  reset,
  ScriptedServer,
  status,
  storeUpload,
} from './scripted-server.js';
import { bodies, client, Subject, take } from './service.js';

test('an event that comes while a broken call is made again is not sent in place of an earlier one', async () => {
  const secondCall = Promise.withResolvers<void>();
  const breaks: Answer = (stream, headers) => {
    beginUpload(stream);
    stream.once('data', () => reset('NGHTTP2_CANCEL')(stream, headers));
  };
  const stored: string[] = [];
  const storesLate: Answer = (stream) => {
    secondCall.resolve();
    // The event `b` comes before the call begins.
    setTimeout(() => storeUpload(stored)(stream, {}), 50);
  };
  const server = await ScriptedServer.start(breaks, storesLate, storeUpload(stored));
  async function* source(): AsyncGenerator<string> {
    yield 'a';
    await secondCall.promise;
    yield 'b';
    await sleep(400);
    yield 'c';
  }
  const summary = await within(client(server.address).upload('t', source()), 'the upload');
  expect(stored).toEqual(['a', 'b', 'c']);
  expect(summary.stored).toBe(3);
});

test('an upload whose message had a compression that was not announced fails, and knows what is stored', async () => {
  const refuses: Answer = (stream, headers) => {
    beginUpload(stream);
    const info = { reason: 'COMPRESSION_INVALID', metadata: { received: '1' } };
    stream.once('data', () => status(13, 'a compressed message', info)(stream, headers));
  };
  const server = await ScriptedServer.start(refuses, storeUpload([]));
  const failure = await within(
    client(server.address)
      .upload('t', ['a', 'b'])
      .catch((error: unknown) => error),
    'the end',
  );
  expect(failure).toMatchObject({ reason: 'COMPRESSION_INVALID', stored: 1, unknown: 0 });
  expect(server.calls).toHaveLength(1);
});

test('an upload whose server takes some seconds for its headers is sent again when it breaks', async () => {
  const stored: string[] = [];
  const breaksLate: Answer = (stream, headers) => {
    setTimeout(() => {
      beginUpload(stream);
      stream.once('data', () => reset('NGHTTP2_CANCEL')(stream, headers));
    }, 3_000);
  };
  const server = await ScriptedServer.start(breaksLate, storeUpload(stored));
  await within(client(server.address).upload('t', ['a']), 'the upload');
  expect(stored).toEqual(['a']);
});

test('an upload that begins where all connections have gone silent is stored over new ones, and so are events in doubt', async () => {
  const subject = await Subject.start();
  const other = await FaultProxy.start(() => subject.address);
  const keepalive = { time: 60_000, timeout: 60_000 }; // It would find the connections dead as soon as the upload does.
  const feed = client([subject.proxy.address, other.address], { keepalive });
  // Calls take turns, so there is a connection to each.
  for (const body of ['a', 'b']) await feed.upload('t', [body]);
  const doubting = subject.client({ keepalive });
  await doubting.upload('t', ['c']);
  subject.proxy.freezeAll();
  other.freezeAll();
  const doubtful = { events: 1, since: new Date() };
  const summaries = await Promise.all([
    feed.upload('t', ['d']),
    doubting.upload('t', ['e'], { doubtful }),
  ]);
  for (const summary of summaries) expect(summary).toMatchObject({ stored: 1, duplicates: 0 });
  const events = await take(client(subject.address).watch('t', { from: 'earliest' }), 5);
  expect(bodies(events).toSorted()).toEqual(['a', 'b', 'c', 'd', 'e']);
});

test('an upload is stored by a server that sends its headers with the result', async () => {
  const stored: string[] = [];
  const answersLate: Answer = (stream, headers) => {
    stream.once('readable', () => storeUpload(stored)(stream, headers));
  };
  const server = await ScriptedServer.start(answersLate);
  const upload = client(server.address).upload('t', ['a']);
  const summary = await within(upload, 'the upload', 90_000);
  expect(stored).toEqual(['a']);
  expect(summary.stored).toBe(1);
});

test.each([
  ['more than were sent', storeUpload([], (count) => count + 1)],
  ['fewer than were sent, though it says OK', storeUpload([], () => 0)],
  ['a part of one', refusing('1.5')],
  ['more than were sent, with an error', refusing('3')],
  ['a text', refusing('many')],
])('an upload fails when the server says that it stored %s', async (_, answer) => {
  const server = await ScriptedServer.start(answer);
  const failure: unknown = await within(
    client(server.address)
      .upload('t', ['a', 'b'])
      .catch((error: unknown) => error),
    'the failure',
  );
  expect(failure).toMatchObject({ status: 'DATA_LOSS', stored: 0, unknown: 2 });
});

/** Takes an event and ends the upload with a status that says how many are stored. */
function refusing(received: string): Answer {
  return (stream, headers) => {
    beginUpload(stream);
    stream.once('data', () =>
      status(14, 'leaving', { reason: 'DRAINING', metadata: { received } })(stream, headers),
    );
  };
}

test.each([
  ['ENDED_BY_OPERATOR with `received`', 'ENDED_BY_OPERATOR', { received: '1' }, 1, 0],
  ['ENDED_BY_OPERATOR without it', 'ENDED_BY_OPERATOR', {}, 0, 2],
  ['TOPIC_FORBIDDEN without it', 'TOPIC_FORBIDDEN', {}, 0, 2],
])(
  'an upload that ends with %s keeps in doubt what may be stored',
  async (_, reason, metadata: Record<string, string>, stored, unknown) => {
    const code = reason === 'TOPIC_FORBIDDEN' ? 7 : 10;
    const server = await ScriptedServer.start((stream, headers) => {
      beginUpload(stream);
      stream.once('data', () => status(code, 'no', { reason, metadata })(stream, headers));
    });
    const failure: unknown = await within(
      client(server.address)
        .upload('t', ['a', 'b'])
        .catch((error: unknown) => error),
      'the failure',
    );
    expect(failure).toMatchObject({ reason, stored, unknown });
  },
);

test('an upload without an end keeps nothing of the calls that it has made', async () => {
  const server = await ScriptedServer.start(storeUpload([], undefined, 4));
  const promises: number[] = [];
  let asked: PromiseWithResolvers<void>;
  async function* source(): AsyncGenerator<string> {
    for (let call = 1; call <= 300; call++) {
      asked = Promise.withResolvers();
      yield 'a';
      await asked.promise;
      // It collects what nothing refers to, before it counts.
      if (call % 100 === 0) promises.push(queryObjects(Promise, { format: 'count' }));
    }
  }
  const onProgress = (): void => asked.resolve();
  await client(server.address).upload('t', source(), { onProgress });
  expect(promises[2] - promises[0]).toBeLessThan(100);
}, 120_000);

test.each([
  [1, 1],
  [8, 2],
])(
  'where the server remembers %i ids, no call sends more than %i events, though the source gives many at once',
  async (ids, most) => {
    const stored: string[] = [];
    const counts: number[] = [];
    const count = (events: number): number => {
      counts.push(events);
      return events;
    };
    const server = await ScriptedServer.start(storeUpload(stored, count, ids));
    const source = Array.from({ length: 25 }, (_one, index) => `body-${index}`);
    const summary = await client(server.address).upload('t', source);
    expect(Math.max(...counts)).toBe(most);
    expect(stored).toEqual(source);
    expect(summary.stored).toBe(25);
  },
);
