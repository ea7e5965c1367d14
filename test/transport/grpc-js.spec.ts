import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { createRequire } from 'node:module';
import { Server } from '@grpc/grpc-js';
import { describe, expect, test, vi } from 'vitest';
import * as http2 from '../../src/grpc/transport/http2.js';
import type { Call } from '../../src/grpc/transport/index.js';
import { codec, failure, take, upload } from '../support/client.js';
import { eventFrames, idsIn } from '../support/frames.js';
import { RawClient } from '../support/raw-client.js';
import { until } from '../support/wait.js';
import { writeDirectly } from '../../src/grpc/transport/write-directly.js';
import { type Handlers, serve } from './harness.js';

describe('what the transport needs of grpc-js is where it was', () => {
  test('a server has its options and makes its HTTP/2 server where they are changed', () => {
    const server = new Server() as unknown as Record<string, unknown>;
    expect(server.commonServerOptions).toBeTypeOf('object');
    expect(server.createHttp2Server).toBeTypeOf('function');
  });

  test('each method has its HTTP/2 stream, and grpc-js reads and writes none of its bytes', async () => {
    const streams: (string | undefined)[] = [];
    const note = (call: Call): void => {
      streams.push(call.stream?.constructor.name);
    };
    const { client } = await serve({
      async *watch(_request, call) {
        note(call);
        yield eventFrames({ id: 'a' });
        await until(() => call.signal.aborted, 'the end');
      },
      async upload(frames, call) {
        note(call);
        expect(call.stream?.listenerCount('data')).toBe(1);
        for await (const batch of frames) idsIn(batch);
        return { received: 0 };
      },
      async *chat(frames, call) {
        note(call);
        for await (const { pieces } of frames) yield { bytes: pieces[0], count: 1 };
      },
    });
    await take(client, { topic: 't' }, 1);
    await upload(client, [{ id: 'a' }]);
    await new Promise<void>((resolve) => {
      const chat = client.Chat();
      chat.on('data', () => chat.end());
      chat.on('end', resolve);
      chat.write({ text: 'hello' });
    });
    expect(streams).toEqual(Array(3).fill('ServerHttp2Stream'));
  });

  test('what is written goes under the Writable of the stream, but for the first write of all, in order and whole', async () => {
    const sizes = [10, 200_000, 1, 70_000, ...Array.from({ length: 20 }, (_, i) => i)];
    const written: number[] = [];
    const { client } = await serve({
      async *watch(_request, { stream }) {
        const writes = vi.spyOn(stream!, 'write');
        for (const [i, size] of sizes.entries()) {
          yield eventFrames({ id: String(i), body: 'x'.repeat(size) });
          written.push(writes.mock.calls.length);
        }
      },
    });
    for (let i = 0; i < 2; i++) {
      const events = await take(client, { topic: 't' }, sizes.length);
      expect(events.map(({ body }) => body.length)).toEqual(sizes);
    }
    expect(written[sizes.length - 1]).toBeLessThanOrEqual(1);
    expect(written.at(-1)).toBe(0);
  });

  test('a write that is under way when its stream goes is said not to be out', async () => {
    const outs: boolean[] = [];
    const { address, client } = await serve({
      async *watch(request, { stream }) {
        yield eventFrames({ id: 'a' });
        if (codec.watchRequest.deserialize(request).topic === 'first') return;
        const bytes = Buffer.alloc(1024 * 1024);
        expect(writeDirectly(stream!, bytes, (isOut) => outs.push(isOut))).toBe(true);
        await until(() => stream!.destroyed, 'the end of the stream');
        expect(writeDirectly(stream!, bytes, () => expect.unreachable())).toBe(false);
      },
    });
    await take(client, { topic: 'first' }, 1); // the first write of all shows the way
    const raw = await RawClient.connect(address);
    const call = raw.open('Watch').send(codec.watchRequest.serialize({ topic: 't' }));
    call.stream.end();
    await call.headers;
    await sleep(100);
    expect(outs).toEqual([]);
    raw.close();
    await until(() => outs.length === 1, 'the end of the write');
    expect(outs).toEqual([false]);
  });

  test('the receive windows are raised, of a stream and of its connection (grpc-js: 64 KiB)', async () => {
    const { address } = await serve({});
    const raw = await RawClient.connect(address);
    expect(raw.session.remoteSettings.initialWindowSize).toBe(1024 * 1024);
    await until(
      () => (raw.session.state.remoteWindowSize ?? 0) > 15 * 1024 * 1024,
      'the window of the session',
    );
    raw.close();
  });

  test('its version is the one that these tests were run on', () => {
    const version = JSON.parse(
      readFileSync(createRequire(import.meta.url).resolve('@grpc/grpc-js/package.json'), 'utf8'),
    ) as { version: string };
    expect(version.version).toBe('1.14.7');
  });
});

describe('where grpc-js hides its HTTP/2 stream, the slower path is still right', () => {
  const handlers: Handlers = {
    async *watch(_request, call) {
      yield eventFrames({ id: 'a' }, { id: 'b' });
      yield eventFrames({ id: 'c' });
      await new Promise<void>((resolve) => call.signal.addEventListener('abort', () => resolve()));
      throw call.signal.reason as Error;
    },
    async upload(frames) {
      let received = 0;
      for await (const batch of frames) received += idsIn(batch).length;
      return { received };
    },
    async *chat(frames) {
      for await (const { pieces } of frames)
        for (const piece of pieces) yield { bytes: piece, count: 1 };
    },
  };

  async function serveSlowly() {
    const hidden = vi.spyOn(http2, 'http2StreamOf').mockReturnValue(undefined);
    const served = await serve(handlers);
    return { ...served, restore: () => hidden.mockRestore() };
  }

  test('watch, upload, chat, cancel and deadline', async () => {
    const { client, ended, restore } = await serveSlowly();
    const events = await take(client, { topic: 't' }, 3);
    expect(events.map(({ id }) => id)).toEqual(['a', 'b', 'c']);
    await until(() => ended.length === 1, 'the end of a cancelled watch');

    const many = Array.from({ length: 500 }, (_, i) => ({ id: String(i) }));
    expect((await upload(client, many)).result?.received).toBe(500);

    const texts: string[] = [];
    await new Promise<void>((resolve) => {
      const chat = client.Chat();
      chat.on('data', ({ text }) => {
        texts.push(text);
        if (texts.length === 3) chat.end();
      });
      chat.on('end', resolve);
      for (const text of ['1', '2', '3']) chat.write({ text });
    });
    expect(texts).toEqual(['1', '2', '3']);

    const late = client.Watch({ topic: 't' }, { deadline: Date.now() + 100 });
    expect((await failure(late)).code).toBe(4);
    await until(() => ended.length === 4, 'the end of a late watch');
    restore();
  });

  test('a client that half-closes and cancels is not taken for done', async () => {
    const { address, ended, restore } = await serveSlowly();
    const raw = await RawClient.connect(address);
    const call = raw.open('UploadEvents').send(codec.event.serialize({ id: 'a' }));
    await new Promise((resolve) => setTimeout(resolve, 100));
    call.stream.destroy();
    await until(() => ended.length === 1, 'the end of the call');
    expect(ended[0].code).not.toBe(0);
    raw.close();
    restore();
  });
});
