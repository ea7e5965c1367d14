import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type Event } from '../../src/gen/feed/v1/feed.js';
import type { Frames } from '../../src/wire/frames.js';
import { codec, take } from '../support/client.js';
import { eventFrames } from '../support/frames.js';
import { RawClient } from '../support/raw-client.js';
import { standstill, until } from '../support/wait.js';
import { serve } from './harness.js';

/** Makes endless batches of about `bytes` each, and counts how many were asked for. */
function source(bytes: number) {
  const state = { batches: 0, released: false };
  async function* batches(): AsyncGenerator<Frames> {
    try {
      for (;;) {
        state.batches++;
        yield eventFrames({ id: String(state.batches), body: 'x'.repeat(bytes) });
        await new Promise(setImmediate);
      }
    } finally {
      state.released = true;
    }
  }
  return { state, batches };
}

describe('a response stream', () => {
  test('of an async generator is sent message by message (stock sends one empty message)', async () => {
    const { client } = await serve({
      async *watch() {
        yield eventFrames({ id: 'a' }, { id: 'b' });
        yield eventFrames({ id: 'c' });
      },
    });
    const ids: string[] = [];
    for await (const event of client.Watch({ topic: 't' }) as AsyncIterable<Event>)
      ids.push(event.id);
    expect(ids).toEqual(['a', 'b', 'c']);
  });

  test('is not pulled ahead of a client that reads nothing (stock pulls without bound)', async () => {
    const { state, batches } = source(30_000);
    const { address } = await serve({ watch: batches });
    const raw = await RawClient.connect(address);
    const call = raw.open('Watch').send(codec.watchRequest.serialize({ topic: 't' }));
    call.stream.end();
    await until(() => call.isFull, 'a window that is used up');
    // The batches fill the client's window of 64 KiB and what node's client reads ahead, and one more is being written.
    expect(await standstill(() => Math.min(state.batches, 12))).toBeLessThan(12);
    raw.close();
    await until(() => state.released, 'release of the stalled stream');
  });

  test('of small batches asks for one only while its client reads nothing', async () => {
    let batches = 0;
    const { address } = await serve({
      async *watch() {
        // This takes all but 5 bytes of the client's window.
        yield eventFrames({ body: 'x'.repeat(59_986) });
        for (;;) {
          batches++;
          yield eventFrames({ id: 'small' });
          await new Promise(setImmediate);
        }
      },
    });
    const raw = await RawClient.connect(address, { initialWindowSize: 60_000 });
    const call = raw.open('Watch').send(codec.watchRequest.serialize({ topic: 't' }));
    call.stream.end();
    await call.headers;
    await until(() => batches >= 1, 'the first small batch');
    expect(await standstill(() => Math.min(batches, 2))).toBe(1);
    raw.close();
  });

  test('goes on, complete and in order, once a stalled client reads again', async () => {
    const { batches } = source(30_000);
    const { client } = await serve({ watch: batches });
    const call = client.Watch({ topic: 't' });
    const ids: string[] = [];
    call.on('error', () => {});
    call.on('data', (event: Event) => {
      ids.push(event.id);
      if (ids.length === 3) {
        call.pause();
        setTimeout(() => call.resume(), 300);
      }
    });
    await until(() => ids.length >= 100, '100 events');
    call.cancel();
    expect(ids).toEqual(ids.map((_, i) => String(i + 1)));
  });

  test('has its headers before its first message', async () => {
    const { address } = await serve({
      watch(_request, call) {
        call.sendHeaders({ 'feed-test': 'yes' });
        return (async function* () {
          await new Promise<void>((resolve) =>
            call.signal.addEventListener('abort', () => resolve()),
          );
          yield* [];
        })();
      },
    });
    const raw = await RawClient.connect(address);
    const call = raw.open('Watch').send(codec.watchRequest.serialize({ topic: 't' }));
    call.stream.end();
    expect((await call.headers)['feed-test']).toBe('yes');
    raw.close();
  });

  test('does not slow down another one on the same connection when its client stalls', async () => {
    const { batches } = source(10_000);
    const { client } = await serve({ watch: batches });
    const stalled = client.Watch({ topic: 't' });
    stalled.on('error', () => {});
    stalled.once('data', () => stalled.pause());
    await sleep(200);
    const read = await take(client, { topic: 't' }, 200);
    expect(read).toHaveLength(200);
    stalled.cancel();
  });
});

describe('a conversation', () => {
  test('is answered while its request stream is open, and after it was half-closed', async () => {
    const { client } = await serve({
      async *chat(frames) {
        for await (const { pieces } of frames)
          for (const piece of pieces) yield { bytes: piece, count: 1 };
        yield eventFrames({ id: 'bye' });
      },
    });
    const call = client.Chat();
    const texts: string[] = [];
    const closed = new Promise((resolve) => call.on('end', resolve));
    call.on('data', ({ from }) => {
      texts.push(from);
      if (texts.length === 1) call.end();
    });
    call.write({ from: 'a' });
    await closed;
    expect(texts).toEqual(['a', 'bye']);
  });

  test('takes the next message only when the client has taken the answer to the last', async () => {
    let answered = 0;
    const { address } = await serve({
      async *chat(frames) {
        for await (const { pieces } of frames) {
          for (const piece of pieces) {
            answered++;
            yield { bytes: Buffer.concat([piece, piece, piece]), count: 3 };
          }
        }
      },
    });
    const raw = await RawClient.connect(address);
    const call = raw.open('Chat'); // never reads
    const message = codec.chatMessage.serialize({ text: 'x'.repeat(30_000) });
    for (let i = 0; i < 300; i++) call.send(message);
    await until(() => answered > 0, 'an answer');
    expect(await standstill(() => answered)).toBeLessThan(60);
    raw.close();
  });
});
