import { readFileSync } from 'node:fs';
import type { ServerHttp2Stream } from 'node:http2';
import { createRequire } from 'node:module';
import { PassThrough } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { takeReading } from '../../src/grpc/transport/grpc-js.js';
import type { Call } from '../../src/grpc/transport/index.js';
import { take, upload } from '../support/client.js';
import { eventFrames, idsIn } from '../support/frames.js';
import { RawClient } from '../support/raw-client.js';
import { until } from '../support/wait.js';
import { serve } from './harness.js';

describe("the parts of grpc-js's insides that the transport uses", () => {
  test('each method has its HTTP/2 stream, and grpc-js reads and writes none of its bytes', async () => {
    const streams: string[] = [];
    const note = (call: Call): void => {
      streams.push(call.stream.constructor.name);
    };
    const { client } = await serve({
      async *watch(_request, call) {
        note(call);
        yield eventFrames({ id: 'a' });
        await until(() => call.signal.aborted, 'the end');
      },
      async upload(frames, call) {
        note(call);
        expect(call.stream.listenerCount('data')).toBe(1);
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

  test("takeReading() removes grpc-js's listeners from a stream, and leaves node's older one", () => {
    const stream = new PassThrough();
    const [older, newer] = [() => {}, () => {}];
    stream.on('end', older).on('data', newer).on('end', newer);
    takeReading(stream as unknown as ServerHttp2Stream);
    expect(stream.listeners('data')).toEqual([]);
    expect(stream.listeners('end')).toEqual([older]);
  });

  test('the receive windows of a stream and of its connection are raised (grpc-js leaves 64 KiB)', async () => {
    const { address } = await serve({});
    const raw = await RawClient.connect(address);
    expect(raw.session.remoteSettings.initialWindowSize).toBe(1024 * 1024);
    await until(
      () => (raw.session.state.remoteWindowSize ?? 0) > 7 * 1024 * 1024, // about half of the session's 16 MiB
      'the window of the session',
    );
    raw.close();
  });

  test('the installed version of grpc-js is the one that these tests were written for', () => {
    const version = JSON.parse(
      readFileSync(createRequire(import.meta.url).resolve('@grpc/grpc-js/package.json'), 'utf8'),
    ) as { version: string };
    expect(version.version).toBe('1.14.7');
  });
});
