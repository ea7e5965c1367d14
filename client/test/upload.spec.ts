import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type FeedError, type UploadProgress, UploadError } from '@feed-events/client';
import { standstill, until } from '../../test/support/wait.js';
import { events as answerWith, ScriptedServer, silence, status } from './scripted-server.js';
import { bodies, client, numbers, Subject, take } from './service.js';

/** Resolves with the error that a promise rejects with. */
async function failureOf(work: Promise<unknown>): Promise<UploadError> {
  const failure: unknown = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(UploadError);
  return failure as UploadError;
}

/** Yields numbers until it is stopped, a few at a time. */
async function* endless(signal: { stopped: boolean }, pause = 5): AsyncGenerator<string> {
  for (let i = 0; !signal.stopped; i++) {
    if (i % 10 === 9) await sleep(pause);
    yield String(i);
  }
}

/** Yields what `one` returns, 20,000 times at most: an upload that has no bound does not take all memory of the machine. */
function* many(one: () => string): Generator<string> {
  for (let i = 0; i < 20_000; i++) yield one();
}

describe('an upload', () => {
  test('takes texts and events, of an iterable or an async one, and gives an id to each that has none', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    const at = new Date('2026-01-02T03:04:05.678Z');
    const events = [
      'text',
      { body: 'event' },
      { id: 'mine', body: 'ünïcödé ☃ 🎉', at },
      { topic: 'other', body: 'x' },
    ];
    const result = await feed.upload('t', events);
    expect(result).toEqual({
      stored: 4,
      duplicates: 0,
      lastCursor: expect.stringMatching(/^\w{16}$/) as string,
      durability: 'DURABILITY_FSYNC',
      retries: 0,
    });
    async function* source(): AsyncGenerator<string> {
      yield 'later';
    }
    await feed.upload('t', source());
    const stored = await take(feed.watch('t', { from: 'earliest' }), 4);
    expect(bodies(stored)).toEqual(['text', 'event', 'ünïcödé ☃ 🎉', 'later']);
    expect(stored[2]).toMatchObject({ id: 'mine', topic: 't', at });
    const ids = stored.map(({ id }) => id);
    expect(new Set(ids).size).toBe(4);
    expect(bodies(await take(feed.watch('other', { from: 'earliest' }), 1))).toEqual(['x']);
  });

  test('of nothing stores nothing', async () => {
    const { address } = await Subject.start();
    const summary = await client(address).upload('t', []);
    expect(summary).toEqual({
      stored: 0,
      duplicates: 0,
      lastCursor: '',
      durability: undefined,
      retries: 0,
    });
  });

  test('counts what others stored before as duplicates', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    const events = [{ id: 'a' }, { id: 'b' }];
    await feed.upload('t', events);
    expect(await feed.upload('t', [...events, { id: 'c' }])).toMatchObject({
      stored: 3,
      duplicates: 2,
    });
  });

  test('of more than a call holds is split, acknowledged as it goes, and in order', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    const progress: UploadProgress[] = [];
    const count = 15_000;
    const source = Array.from({ length: count }, (_, i) => `${i} ${'x'.repeat(1_000)}`);
    await feed.upload('t', source, { onProgress: (state) => progress.push(state) });
    expect(progress.length).toBeGreaterThanOrEqual(3);
    expect(progress.at(-1)).toEqual({ taken: count, stored: count, retries: 0 });
    // The bound on what is not acknowledged (8 MiB) is some 8,000 events here.
    for (const { taken, stored } of progress) expect(taken - stored).toBeLessThan(9_000);
    expect(bodies(await take(feed.watch('t', { from: 'earliest' }), count))).toEqual(source);
  });

  test('of a slow source sends each event at once, and has it acknowledged while the source goes on', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    const stop = { stopped: false };
    let stored = 0;
    const upload = feed.upload('t', endless(stop), {
      onProgress: (state) => (stored = state.stored),
    });
    await until(() => stored >= 10, 'an acknowledgement');
    stop.stopped = true;
    expect((await upload).stored).toBeGreaterThanOrEqual(stored);
  });

  test.each([
    ['an iterable', (one: () => string) => many(one)],
    [
      'an async one that gives one event in each turn',
      async function* (one: () => string) {
        for (const event of many(one)) {
          await nextTurn();
          yield event;
        }
      },
    ],
  ])('makes its source wait while the server takes nothing: %s', async (_, sourceOf) => {
    const subject = await Subject.start();
    const feed = subject.client();
    let taken = 0;
    const source = sourceOf(() => {
      taken++;
      return 'x'.repeat(10_000);
    });
    const controller = new AbortController();
    const upload = failureOf(
      feed.upload('t', source, { signal: controller.signal, maxUnacknowledgedBytes: 2 ** 20 }),
    );
    await until(() => taken > 200, 'an upload that goes');
    subject.proxy.freezeAll();
    const before = taken;
    expect((await standstill(() => taken)) - before).toBeLessThan(500);
    controller.abort();
    const failure = await upload;
    expect(failure.status).toBe('CANCELLED');
    expect(failure.stored + failure.unknown).toBeGreaterThan(0);
  });

  test('whose connection is cut sends again what may be stored, which is not stored twice', async () => {
    const subject = await Subject.start();
    const feed = subject.client();
    const stop = { stopped: false };
    const progress = { taken: 0, stored: 0, retries: 0 };
    const upload = feed.upload('t', endless(stop, 1), {
      onProgress: (state) => Object.assign(progress, state),
    });
    for (let cut = 1; cut <= 5; cut++) {
      const { stored } = progress;
      await until(() => progress.stored > stored, 'an acknowledgement');
      await sleep(50); // Events of the next call are stored, and not acknowledged.
      subject.proxy.cutAll();
      await until(() => progress.retries >= cut, 'a retry');
    }
    stop.stopped = true;
    const summary = await upload;
    expect(summary.duplicates).toBeGreaterThan(0);
    const all = await take(feed.watch('t', { from: 'earliest' }), summary.stored);
    expect(bodies(all)).toEqual(numbers(0, summary.stored));
  });

  test('whose server is killed and comes back stores each event once, in order', async () => {
    const subject = await Subject.start();
    const feed = subject.client();
    const stop = { stopped: false };
    let stored = 0;
    const reasons: FeedError[] = [];
    const upload = feed.upload('t', endless(stop, 1), {
      onProgress: (state) => (stored = state.stored),
      onRetry: (reason) => reasons.push(reason),
    });
    for (let kill = 0; kill < 2; kill++) {
      const before = stored;
      await until(() => stored > before + 100, 'acknowledgements');
      await subject.service.kill('SIGKILL');
      await subject.restart();
    }
    stop.stopped = true;
    const summary = await upload;
    expect(reasons[0].status).toBe('UNAVAILABLE');
    expect(summary.retries).toBe(reasons.length);
    const all = await take(
      client(subject.address).watch('t', { from: 'earliest' }),
      summary.stored,
    );
    expect(bodies(all)).toEqual(numbers(0, summary.stored));
  });

  test('that a drain ends goes on where the server says, without a duplicate', async () => {
    const subject = await Subject.start({ FEED_DRAIN_TIMEOUT: '100ms' });
    const feed = subject.client();
    const stop = { stopped: false };
    let stored = 0;
    const upload = feed.upload('t', endless(stop, 1), {
      onProgress: (state) => (stored = state.stored),
    });
    await until(() => stored > 100, 'acknowledgements');
    await subject.service.kill('SIGTERM');
    await subject.restart();
    stop.stopped = true;
    const summary = await upload;
    expect(summary.duplicates).toBe(0);
    const all = await take(feed.watch('t', { from: 'earliest' }), summary.stored);
    expect(bodies(all)).toEqual(numbers(0, summary.stored));
  });

  test('ends at an event that the server refuses, and says which, and what is stored', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    const source = [
      ...numbers(0, 20_000).map((n) => n + 'x'.repeat(400)),
      { body: 'bad', topic: 'a b' },
      'after',
    ];
    const failure = await failureOf(feed.upload('t', source));
    expect(failure).toMatchObject({
      status: 'INVALID_ARGUMENT',
      reason: 'EVENT_INVALID',
      stored: 20_000,
      unknown: 0,
      index: 20_000,
    });
  });

  test.each([
    ['is too short for the outage', '1s', 2_000],
    ['is off', '0s', 0],
  ])(
    'is not sent again in silence where the deduplication window %s',
    async (_, window, outage) => {
      const subject = await Subject.start({ FEED_DEDUP_WINDOW: window });
      const feed = subject.client();
      const stop = { stopped: false };
      let stored = 0;
      const upload = failureOf(
        feed.upload('t', endless(stop, 1), { onProgress: (state) => (stored = state.stored) }),
      );
      await until(() => stored > 100, 'acknowledgements');
      await subject.service.kill('SIGKILL');
      await sleep(outage);
      await subject.restart();
      const failure = await upload;
      stop.stopped = true;
      expect(failure).toMatchObject({ status: 'ABORTED', stored: expect.any(Number) as number });
      expect(failure.unknown).toBeGreaterThan(0);
      // What the log holds is what is stored, and a part of what is unknown: nothing twice.
      const [{ cursor }] = await take(feed.watch('t', { from: { last: 1 } }), 1);
      const all: string[] = [];
      for await (const event of feed.watch('t', { from: 'earliest' })) {
        all.push(event.body);
        if (event.cursor === cursor) break;
      }
      expect(all).toEqual(numbers(0, all.length));
      expect(all.length).toBeGreaterThanOrEqual(failure.stored);
      expect(all.length).toBeLessThanOrEqual(failure.stored + failure.unknown);
    },
  );

  test('whose source fails stores what came before, and says so', async () => {
    const { address } = await Subject.start();
    const feed = client(address);
    async function* source(): AsyncGenerator<string> {
      yield 'a';
      yield 'b';
      throw new Error('no more');
    }
    const failure = await failureOf(feed.upload('t', source()));
    expect(failure).toMatchObject({ status: 'ABORTED', stored: 2, unknown: 0 });
    expect(failure.message).toContain('no more');
    expect(bodies(await take(feed.watch('t', { from: 'earliest' }), 2))).toEqual(['a', 'b']);
  });

  test('lets its source end when it fails', async () => {
    const server = await ScriptedServer.start(status(7, 'not you'));
    let hasEnded = false;
    async function* source(): AsyncGenerator<string> {
      try {
        for (;;) {
          yield 'x';
          await sleep(1);
        }
      } finally {
        hasEnded = true;
      }
    }
    const failure = await failureOf(client(server.address).upload('t', source()));
    expect(failure).toMatchObject({ status: 'PERMISSION_DENIED', stored: 0 });
    await until(() => hasEnded, "the source's end");
  });

  test.each([
    ['returns', () => Promise.resolve({ done: true as const, value: undefined })],
    ['never returns', () => new Promise<never>(() => {})],
    ['rejects', () => Promise.reject(new Error('mine'))],
    [
      'throws',
      () => {
        throw new Error('mine');
      },
    ],
  ])('lets a source that it waits for end when it fails, once, though it %s', async (_, end) => {
    const server = await ScriptedServer.start(status(7, 'not you'));
    let returns = 0;
    const late = Promise.withResolvers<IteratorResult<string>>();
    const all = [Promise.resolve({ value: 'x' }), late.promise];
    const source: AsyncIterable<string> = {
      [Symbol.asyncIterator]: () => ({
        next: () => all.shift()!,
        return: () => {
          returns++;
          late.resolve({ value: 'late' });
          return end();
        },
      }),
    };
    const failure = await failureOf(client(server.address).upload('t', source));
    expect(failure).toMatchObject({ status: 'PERMISSION_DENIED', stored: 0 });
    await sleep(100);
    expect(returns).toBe(1);
  });

  test('does not let a source end that has ended by itself', async () => {
    const { address } = await Subject.start();
    const left = ['a', 'b'];
    let returns = 0;
    const source: AsyncIterable<string> = {
      [Symbol.asyncIterator]: () => ({
        next: async () =>
          left.length > 0 ? { value: left.shift()! } : { done: true, value: undefined },
        return: async () => {
          returns++;
          return { done: true, value: undefined };
        },
      }),
    };
    expect(await client(address).upload('t', source)).toMatchObject({ stored: 2 });
    expect(returns).toBe(0);
  });

  test('ends a watch that is its source when it fails', async () => {
    const server = await ScriptedServer.start(answerWith('a'));
    const refusing = await ScriptedServer.start(status(7, 'not you'));
    const states: string[] = [];
    const watch = client(server.address).watch('t', {
      from: 'earliest',
      onState: ({ name }) => void states.push(name),
    });
    const failure = await failureOf(client(refusing.address).upload('', watch));
    expect(failure).toMatchObject({ status: 'PERMISSION_DENIED' });
    await until(() => states.at(-1) === 'ended', 'the end of the watch');
  });

  test.each([
    [
      'an iterable',
      (next: () => string) => ({
        *[Symbol.iterator]() {
          for (;;) yield next();
        },
      }),
    ],
    [
      'an async one',
      (next: () => string) => ({
        async *[Symbol.asyncIterator]() {
          for (;;) yield next();
        },
      }),
    ],
    [
      'an async one that knows no return()',
      (next: () => string) => ({
        [Symbol.asyncIterator]: () => ({
          next: async () => ({ done: false as const, value: next() }),
        }),
      }),
    ],
  ])('that has ended takes nothing more from its source, %s', async (_, sourceOf) => {
    let taken = 0;
    const source = sourceOf(() => `${taken++}`.padEnd(100_000));
    const cancel = new AbortController();
    const upload = client('127.0.0.1:1').upload('t', source, {
      signal: cancel.signal,
      maxUnacknowledgedBytes: 300_000,
    });
    const failed = failureOf(upload);
    const before = await standstill(() => taken);
    cancel.abort();
    await failed;
    expect(await standstill(() => taken)).toBe(before);
  });

  test('that is cancelled before it begins takes nothing from its source', async () => {
    const queue = ['a', 'b'];
    const source = {
      *[Symbol.iterator]() {
        while (queue.length > 0) yield queue.shift()!;
      },
    };
    await failureOf(client('127.0.0.1:1').upload('t', source, { signal: AbortSignal.abort() }));
    expect(queue).toEqual(['a', 'b']);
  });

  test('retries while the store refuses, and says why', async () => {
    const { address } = await Subject.start({ FEED_QUOTA_BYTES: '1MiB' });
    const controller = new AbortController();
    const reasons: (string | undefined)[] = [];
    const upload = client(address).upload(
      't',
      Array.from({ length: 2_000 }, () => 'x'.repeat(1_000)),
      {
        signal: controller.signal,
        onRetry: ({ reason }) => reasons.push(reason),
      },
    );
    const failure = failureOf(upload);
    await until(() => reasons.length >= 3, 'retries');
    controller.abort();
    expect(new Set(reasons)).toEqual(new Set(['STORAGE_FULL']));
    expect(await failure).toMatchObject({ status: 'CANCELLED', unknown: 0 });
  });

  test('can be cancelled while it connects', async () => {
    const server = await ScriptedServer.start(silence);
    const failure = await failureOf(
      client(server.address).upload('t', ['a'], { signal: AbortSignal.timeout(100) }),
    );
    expect(failure).toMatchObject({ status: 'CANCELLED', stored: 0 });
  });
});
