import { once } from 'node:events';
import { constants } from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { Metadata, status } from '@grpc/grpc-js';
import { RpcException } from '@nestjs/microservices';
import { describe, expect, onTestFinished, test } from 'vitest';
import { FeedError } from '../../src/feed/errors.js';
import type { Call } from '../../src/grpc/transport/index.js';
import { LINGER } from '../../src/grpc/transport/unread.js';
import type { Frames } from '../../src/wire/frames.js';
import { codec, errorInfo, failure, take, upload } from '../support/client.js';
import { eventFrames } from '../support/frames.js';
import { RawClient } from '../support/raw-client.js';
import { eventually, until, within } from '../support/wait.js';
import { serve } from './harness.js';

/** Makes a watch that sends one event, waits until the signal is aborted, and records the reason. */
function idle() {
  const state = { open: 0, reasons: [] as unknown[] };
  async function* watch(_request: unknown, call: Call): AsyncGenerator<Frames> {
    state.open++;
    try {
      yield eventFrames({ id: 'first' });
      await new Promise<void>((resolve) => {
        if (call.signal.aborted) resolve();
        call.signal.addEventListener('abort', () => resolve());
      });
      state.reasons.push(call.signal.reason);
      throw call.signal.reason as Error;
    } finally {
      state.open--;
    }
  }
  return { state, watch };
}

/** Sends events without end. */
async function* flood(): AsyncGenerator<Frames> {
  for (;;) {
    yield eventFrames({ id: 'x', body: 'x'.repeat(30_000) });
    await new Promise(setImmediate);
  }
}

describe('the end of a call', () => {
  test('a call ends once when its client cancels: the signal says so, and everything is released', async () => {
    const { state, watch } = idle();
    const { client, ended } = await serve({ watch });
    await take(client, { topic: 't' }, 1);
    await until(() => ended.length === 1, 'the end of the call');
    await eventually(() =>
      expect(state).toMatchObject({ open: 0, reasons: [{ code: status.CANCELLED }] }),
    );
    expect(ended[0].code).toBe(status.CANCELLED);
    await sleep(50); // time for a second end, which must not come
    expect(ended).toHaveLength(1);
  });

  test('a call ends when its connection is lost', async () => {
    const { state, watch } = idle();
    const { address, ended } = await serve({ watch });
    const raw = await RawClient.connect(address);
    const call = raw
      .open('Watch')
      .send(codec.watchRequest.serialize({ topic: 't' }))
      .drop();
    call.stream.end();
    await call.headers;
    raw.session.socket.destroy();
    await until(() => ended.length === 1, 'the end of the call');
    await eventually(() => expect(state.open).toBe(0));
    expect(ended[0]).toMatchObject({
      code: status.CANCELLED,
      details: "the client's connection is gone",
    });
  });

  test('a call ends when its deadline passes: the client gets DEADLINE_EXCEEDED, and the signal says so', async () => {
    const { state, watch } = idle();
    const { address, client, ended } = await serve({ watch });
    const raw = await RawClient.connect(address); // a client that does not watch the deadline itself
    const call = raw.open('Watch', { 'grpc-timeout': '1S' }).drop();
    call.send(codec.watchRequest.serialize({ topic: 't' })).stream.end();
    expect((await call.trailers)?.['grpc-status']).toBe(String(status.DEADLINE_EXCEEDED));
    await until(() => ended.length === 1, 'the end of the call');
    expect(ended[0].code).toBe(status.DEADLINE_EXCEEDED);
    await eventually(() =>
      expect(state).toMatchObject({ open: 0, reasons: [{ code: status.DEADLINE_EXCEEDED }] }),
    );
    raw.close();
    const stock = client.Watch({ topic: 't' }, { deadline: Date.now() + 200 });
    expect((await failure(stock)).code).toBe(status.DEADLINE_EXCEEDED);
  });

  test('a call that nobody reads is released when its deadline passes, and reset later (grpc-js never tells the handler)', async () => {
    let released = 0;
    const { address, ended } = await serve({
      async *watch() {
        try {
          yield* flood();
        } finally {
          released = performance.now();
        }
      },
    });
    const raw = await RawClient.connect(address);
    const call = raw.open('Watch', { 'grpc-timeout': '1S' });
    call.send(codec.watchRequest.serialize({ topic: 't' })).stream.end();
    await within(call.closed, 'a reset');
    expect(ended.map(({ code }) => code)).toEqual([status.DEADLINE_EXCEEDED]);
    // It was released before the reset, and not by it.
    expect(released).toBeGreaterThan(0);
    expect(performance.now() - released).toBeGreaterThan(LINGER / 2);
    raw.close();
  });

  test('a call ends when its client cancels while a write is blocked (the write callback never comes then)', async () => {
    let released = false;
    const { address } = await serve({
      async *watch() {
        try {
          yield* flood();
        } finally {
          released = true;
        }
      },
    });
    const raw = await RawClient.connect(address);
    const call = raw.open('Watch').send(codec.watchRequest.serialize({ topic: 't' }));
    call.stream.end();
    await until(() => call.isFull, 'a window that is used up');
    call.stream.close(8);
    await until(() => released, 'release');
    raw.close();
  });

  test('a call does not end at once for a deadline of more than 24.8 days (with grpc-js, it does)', async () => {
    const { watch } = idle();
    const { address, ended } = await serve({ watch });
    const raw = await RawClient.connect(address);
    const call = raw.open('Watch', { 'grpc-timeout': '1000H' });
    call.send(codec.watchRequest.serialize({ topic: 't' })).drop();
    call.stream.end();
    await call.headers;
    await sleep(100);
    expect(ended).toEqual([]);
    raw.close();
  });

  test('the signal of a call that ends with OK is never aborted (grpc-js reports a cancel: grpc-node 2771)', async () => {
    let signal: AbortSignal | undefined;
    const { client, ended } = await serve({
      async *watch(_request, call) {
        signal = call.signal;
        yield eventFrames({ id: 'a' });
        await sleep(1);
      },
    });
    const call = client.Watch({ topic: 't' });
    call.on('data', () => {});
    await once(call, 'end');
    await until(() => ended.length === 1, 'the end of the call');
    await sleep(100); // time for an abort, which must not come
    expect(signal?.aborted).toBe(false);
    expect(ended.map(({ code }) => code)).toEqual([status.OK]);
  });

  test('an error that is thrown mid-stream ends the call with its status, after all that was sent (grpc-js: destroy() hangs)', async () => {
    const { client } = await serve({
      async *watch() {
        yield eventFrames({ id: 'a' });
        await sleep(1);
        throw new FeedError('CURSOR_EXPIRED', 'gone', { earliest: 'e', head: 'h' });
      },
    });
    const call = client.Watch({ topic: 't' });
    let events = 0;
    call.on('data', () => events++);
    const error = await failure(call);
    expect(events).toBe(1);
    expect(error).toMatchObject({ code: status.OUT_OF_RANGE, details: 'gone' });
    expect(errorInfo(error.metadata)).toEqual({
      reason: 'CURSOR_EXPIRED',
      domain: 'feed.v1',
      metadata: { earliest: 'e', head: 'h' },
    });
  });

  test.each<[string, unknown, number, string]>([
    ['an RpcException with a code', new RpcException({ code: 9, message: 'no' }), 9, 'no'],
    ['an RpcException with text', new RpcException('no'), 2, 'no'],
    ['an error without a code', new Error('secret'), 13, 'Internal server error'],
    ['a string', 'secret', 13, 'Internal server error'],
    ['undefined', undefined, 13, 'Internal server error'],
    [
      'an error whose code is no status',
      Object.assign(new Error('secret'), { code: 99 }),
      13,
      'Internal server error',
    ],
    [
      'an error whose code is OK',
      Object.assign(new Error('secret'), { code: 0 }),
      13,
      'Internal server error',
    ],
    [
      'half a surrogate in the details (encodeURI crashes)',
      new RpcException({ code: 9, message: 'a\ud83d' }),
      9,
      'a\ufffd',
    ],
    [
      'metadata that is a plain object (hangs the client)',
      new RpcException({ code: 9, message: 'no', metadata: { a: 1 } }),
      9,
      'no',
    ],
  ])(
    'a call of each method ends with a status when its handler throws %s',
    async (_what, thrown, code, details) => {
      const { client } = await serve({
        watch: () => {
          throw thrown;
        },
        upload: () => Promise.reject(thrown),
        async *chat() {
          yield* [];
          await sleep(1);
          throw thrown;
        },
      });
      expect(await failure(client.Watch({ topic: 't' }))).toMatchObject({ code, details });
      expect((await upload(client, [])).error).toMatchObject({ code, details });
      expect(await failure(client.Chat())).toMatchObject({ code, details });
    },
  );

  test('the metadata of an RpcException reaches the client', async () => {
    const metadata = new Metadata();
    metadata.set('why', 'because');
    const { client } = await serve({
      watch: () => {
        throw new RpcException({ code: 9, message: 'no', metadata });
      },
    });
    expect((await failure(client.Watch({ topic: 't' }))).metadata.get('why')).toEqual(['because']);
  });

  test.each(['UploadEvents', 'Chat'] as const)(
    'a call that is refused does not stay for as long as its client leaves it open: %s',
    async (method) => {
      const refuse = (): Promise<never> => Promise.reject(new FeedError('LIMIT_EXCEEDED', 'full'));
      const { address } = await serve({ upload: refuse, chat: refuse });
      const raw = await RawClient.connect(address);
      onTestFinished(() => raw.close());
      const refused = Array.from({ length: 50 }, () => raw.open(method).drop());
      const { length } = await within(Promise.all(refused.map(({ closed }) => closed)), 'the ends');
      expect(length).toBe(50);
      for (const { stream, trailers } of refused) {
        expect((await trailers)?.['grpc-status']).toBe(String(status.RESOURCE_EXHAUSTED));
        // One that its client does not read would be reset with another code, some seconds later.
        expect(stream.rstCode).toBe(constants.NGHTTP2_NO_ERROR);
      }
    },
  );

  test('thousands of calls that are reset do not end another call on their connection (grpc-node 2872)', async () => {
    const { state, watch } = idle();
    const { address, ended } = await serve({ watch });
    const raw = await RawClient.connect(address);
    const request = codec.watchRequest.serialize({ topic: 't' });
    const bystander = raw.open('Watch').send(request).drop();
    bystander.stream.end();
    await bystander.headers;
    for (let i = 0; i < 3000; i++) {
      const call = raw.open('Watch').send(request);
      call.stream.end();
      call.stream.close(8);
    }
    await raw.pinged(); // the server has read all of them
    await until(() => ended.length >= 1 && state.open === 1, 'all but the bystander to end');
    await sleep(200);
    expect(raw.session.destroyed).toBe(false);
    expect(bystander.stream.closed).toBe(false);
    raw.close();
  });
});
