import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync, deflateSync } from 'node:zlib';
import { status } from '@grpc/grpc-js';
import { APP_GUARD } from '@nestjs/core';
import { describe, expect, test } from 'vitest';
import type { Call } from '../../src/grpc/transport/index.js';
import { BadMessageError, frame, type ReceivedFrames } from '../../src/wire/frames.js';
import { codec, upload } from '../support/client.js';
import { idsIn } from '../support/frames.js';
import { RawClient } from '../support/raw-client.js';
import { standstill, until } from '../support/wait.js';
import { serve } from './harness.js';

const events = (count: number) => Array.from({ length: count }, (_, i) => ({ id: String(i) }));

/** Makes a handler that collects the ids of its events, and answers with their number. */
function collector() {
  const ids: string[] = [];
  const errors: unknown[] = [];
  const handler = async (frames: AsyncIterable<ReceivedFrames>) => {
    try {
      for await (const received of frames) ids.push(...idsIn(received));
    } catch (error) {
      errors.push(error);
      throw error;
    }
    return { received: ids.length };
  };
  return { ids, errors, handler };
}

describe('a request stream', () => {
  test('keeps its order behind an async guard (nest 14094: stock reorders)', async () => {
    const { ids, handler } = collector();
    const guard = { canActivate: () => sleep(20).then(() => true) };
    const { client } = await serve(
      { upload: handler },
      { providers: [{ provide: APP_GUARD, useValue: guard }] },
    );
    const call = client.UploadEvents(() => {});
    for (let i = 0; i < 500; i++) {
      call.write({ id: String(i) });
      if (i % 10 === 0) await sleep(1);
    }
    call.end();
    await until(() => ids.length >= 500, 'all events');
    expect(ids).toEqual(events(500).map(({ id }) => id));
  });

  test('gives an async handler each message once, and then ends (nest 14945: stock hangs)', async () => {
    const { ids, handler } = collector();
    const { client } = await serve({ upload: handler });
    const { result } = await upload(client, events(300));
    expect(result?.received).toBe(300);
    expect(new Set(ids).size).toBe(300);
  });

  test('is not read far ahead of a slow handler (stock reads without bound)', async () => {
    let taken = 0;
    let release = (): void => {};
    const { client } = await serve({
      upload: async (frames) => {
        for await (const received of frames) {
          taken += idsIn(received).length;
          await new Promise<void>((resolve) => (release = resolve));
        }
        return { received: taken };
      },
    });
    const call = client.UploadEvents(() => {});
    const body = 'x'.repeat(10_000);
    let written = 0;
    const write = (): void => {
      while (written < 5_000 && call.write({ id: 'x', body })) written++;
    };
    call.on('drain', write);
    write();
    // Of 50 MB, only a batch, the batch read ahead and HTTP/2's window of the stream are sent.
    expect(await standstill(() => written)).toBeLessThan(500);
    expect(taken).toBeLessThan(50);
    call.cancel();
    call.on('error', () => {});
    release();
  });

  test('is handed on in batches of bounded size, however much came while its handler was busy', async () => {
    const sizes: number[] = [];
    const { client } = await serve({
      async upload(frames) {
        let received = 0;
        for await (const batch of frames) {
          sizes.push(batch.pieces.reduce((sum, { length }) => sum + length, 0));
          received += idsIn(batch).length;
          if (sizes.length === 1) await sleep(300);
        }
        return { received };
      },
    });
    const large = Array.from({ length: 2_000 }, (_, i) => ({
      id: String(i),
      body: 'x'.repeat(400),
    }));
    expect((await upload(client, large)).result?.received).toBe(2_000);
    expect(Math.max(...sizes)).toBeLessThan(64 * 1024 + 16 * 1024);
  });

  test('is handed on in one batch for each turn of the event loop, not for each message', async () => {
    let batches = 0;
    const { address, ended } = await serve({
      upload: async (frames) => {
        let received = 0;
        for await (const batch of frames) {
          batches++;
          received += idsIn(batch).length;
        }
        return { received };
      },
    });
    const raw = await RawClient.connect(address);
    const call = raw.open('UploadEvents').drop();
    await raw.pinged();
    for (const event of events(100)) call.send(codec.event.serialize(event)); // one DATA frame for each event
    call.stream.end();
    expect((await call.trailers)?.['grpc-status']).toBe('0');
    await until(() => ended.length === 1, 'the end of the call');
    expect(batches).toBe(1);
    raw.close();
  });

  test('that is cancelled does not end as a complete one does (grpc-node 2583)', async () => {
    const outcome = Promise.withResolvers<unknown>();
    let taken = 0;
    const { client, ended } = await serve({
      upload: async (frames) => {
        try {
          for await (const received of frames) taken += idsIn(received).length;
          await sleep(50); // grpc-js's client half-closes first, and resets a little later
          outcome.resolve('complete');
        } catch (error) {
          outcome.resolve(error);
        }
        return { received: 0 };
      },
    });
    const call = client.UploadEvents(() => {});
    call.on('error', () => {});
    call.write({ id: 'a' });
    await until(() => taken === 1, 'an open upload');
    call.cancel();
    await outcome.promise;
    await until(() => ended.length === 1, 'the end of the call');
    expect(ended[0].code).toBe(status.CANCELLED);
  });

  test('that is reset rejects its reader with the reason', async () => {
    const outcome = Promise.withResolvers<unknown>();
    const { address, ended } = await serve({
      upload: async (frames) => {
        try {
          for await (const received of frames) idsIn(received);
          outcome.resolve('complete');
        } catch (error) {
          outcome.resolve(error);
          throw error;
        }
        return { received: 0 };
      },
    });
    const raw = await RawClient.connect(address);
    const call = raw.open('UploadEvents').send(codec.event.serialize({ id: 'a' }));
    await raw.pinged();
    call.stream.destroy(); // this only resets; close() would half-close first
    expect(await outcome.promise).toMatchObject({ code: status.CANCELLED });
    await until(() => ended.length === 1, 'the end of the call');
    raw.close();
  });

  test('that ends inside a message rejects its reader (grpc-js drops the message silently)', async () => {
    const { errors, handler } = collector();
    const { address } = await serve({ upload: handler });
    const raw = await RawClient.connect(address);
    const call = raw.open('UploadEvents').drop();
    const whole = frame(codec.event.serialize({ id: 'abc', topic: 'def' }));
    call.stream.end(whole.subarray(0, whole.length - 2));
    expect((await call.trailers)?.['grpc-status']).not.toBe('0');
    expect(errors).toMatchObject([{ message: 'the stream ended inside a message' }]);
    raw.close();
  });

  test('is refused at a message over the limit, before its bytes are read; the messages before it are taken', async () => {
    const { ids, errors, handler } = collector();
    const { address } = await serve({ upload: handler }, { maxMessageBytes: 1000 });
    const raw = await RawClient.connect(address);
    const call = raw.open('UploadEvents').drop();
    call.send(codec.event.serialize({ id: 'fine' }));
    call.stream.write(Buffer.from([0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]));
    expect((await call.trailers)?.['grpc-status']).toBe(String(status.INTERNAL));
    expect(ids).toEqual(['fine']);
    expect(errors).toEqual([
      new BadMessageError('a message of 4294967295 bytes is over the limit of 1000'),
    ]);
    raw.close();
  });

  test('split at any byte gives the same messages', async () => {
    const { ids, handler } = collector();
    const { address } = await serve({ upload: handler });
    const raw = await RawClient.connect(address);
    const call = raw.open('UploadEvents').drop();
    const bytes = Buffer.concat(events(20).map((event) => frame(codec.event.serialize(event))));
    for (const byte of bytes) {
      call.stream.write(Buffer.from([byte]));
      await new Promise(setImmediate);
    }
    call.stream.end();
    expect((await call.trailers)?.['grpc-status']).toBe('0');
    expect(ids).toEqual(events(20).map(({ id }) => id));
    raw.close();
  });

  test.each([
    ['gzip', gzipSync],
    ['deflate', deflateSync],
  ])(
    'of messages compressed with %s is read, mixed with plain ones, in order',
    async (name, compress) => {
      const { ids, handler } = collector();
      const { address } = await serve({ upload: handler });
      const raw = await RawClient.connect(address);
      const call = raw.open('UploadEvents', { 'grpc-encoding': name }).drop();
      for (const event of events(10)) {
        const message = codec.event.serialize(event);
        if (Number(event.id) % 3 === 0) {
          call.send(message);
        } else {
          const framed = frame(compress(message));
          framed[0] = 1;
          call.stream.write(framed);
        }
      }
      call.stream.end();
      expect((await call.trailers)?.['grpc-status']).toBe('0');
      expect(ids).toEqual(events(10).map(({ id }) => id));
      raw.close();
    },
  );

  test.each([
    ['snappy', status.UNIMPLEMENTED],
    ['identity', status.INTERNAL],
    ['gzip', status.INTERNAL], // the bytes below are not gzip's
  ])(
    'with a compressed message ends with a status if %s does not decompress it',
    async (name, code) => {
      const { handler } = collector();
      const { address } = await serve({ upload: handler });
      const raw = await RawClient.connect(address);
      const call = raw.open('UploadEvents', { 'grpc-encoding': name }).drop();
      const framed = frame(Buffer.from('abc'));
      framed[0] = 1;
      call.stream.write(framed);
      expect((await call.trailers)?.['grpc-status']).toBe(String(code));
      raw.close();
    },
  );

  test('that its handler leaves early is still answered (with grpc-js, leaving for await destroys the call)', async () => {
    const { client } = await serve({
      upload: async (frames) => {
        let received = 0;
        for await (const batch of frames) {
          received = idsIn(batch).length;
          break;
        }
        return { received };
      },
    });
    const call = Promise.withResolvers<number>();
    const stream = client.UploadEvents((error, result) =>
      error ? call.reject(error) : call.resolve(result.received),
    );
    stream.write({ id: 'a' });
    expect(await call.promise).toBe(1);
  });

  test('that goes on after the answer is reset, and its bytes are dropped', async () => {
    let signal: AbortSignal | undefined;
    const { address } = await serve({
      upload: (_frames, call: Call) => {
        signal = call.signal;
        return Promise.resolve({ received: 0 });
      },
    });
    const raw = await RawClient.connect(address);
    const call = raw.open('UploadEvents').drop();
    const timer = setInterval(() => call.stream.write(Buffer.alloc(1024)), 5);
    expect((await call.trailers)?.['grpc-status']).toBe('0');
    await call.closed;
    clearInterval(timer);
    expect(signal?.aborted).toBe(false);
    raw.close();
  });
});
