import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { JSON_LINES } from '../../src/http/event-format.js';
import { ResponseSink } from '../../src/http/response-sink.js';
import type { Frames, FrameSource } from '../../src/wire/frames.js';
import { pump } from '../../src/wire/pump.js';
import { eventFrames } from '../support/frames.js';
import { within } from '../support/wait.js';

const good = {
  id: 'good',
  topic: 't',
  body: 'x'.repeat(20_000),
  at: { seconds: 1, nanos: 0 },
  cursor: '0000000001fc406w',
};
/** Its time is none that can be written. */
const damaged = { ...good, id: 'damaged', at: { seconds: 2 ** 52, nanos: 0 } };

/** Sends batches over a connection, and returns what came, and the error with which it ended. */
async function send(
  take: () => Frames | Promise<Frames>,
  abort?: AbortController,
): Promise<{ text: string; error: unknown }> {
  let isClosed = false;
  const source: FrameSource = {
    isOver: false,
    open: () => {},
    take,
    close: () => void (isClosed = true),
  };
  let error: unknown;
  const server = createServer((_request, response) => {
    const { signal } = abort ?? new AbortController();
    const pumped = pump(source, new ResponseSink(signal, response, JSON_LINES));
    void pumped.catch((thrown: unknown) => (error = thrown)).then(() => response.end());
  });
  server.listen(0, '127.0.0.1');
  onTestFinished(() => server.closeAllConnections());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const answer = await fetch(`http://127.0.0.1:${port}`);
  const text = await within(answer.text(), 'the end of the answer');
  server.close();
  expect(isClosed).toBe(true);
  return { text, error };
}

describe('an event that can not be written ends the stream with its error, after those before it', () => {
  test('as the first of a batch', async () => {
    const { text, error } = await send(() => eventFrames(damaged));
    expect(error).toBeInstanceOf(RangeError);
    expect(text).toBe('');
  });

  test('as the first of a batch that was waited for', async () => {
    const { text, error } = await send(async () => eventFrames(damaged));
    expect(error).toBeInstanceOf(RangeError);
    expect(text).toBe('');
  });

  test('in a part of a batch that is written later', async () => {
    const { text, error } = await send(() => eventFrames(good, good, damaged));
    expect(error).toBeInstanceOf(RangeError);
    expect(text.match(/"id":"good"/g)).toHaveLength(2);
  });

  test('beside small events in one part', async () => {
    const small = { ...good, body: 'x' };
    const { text, error } = await send(() => eventFrames(small, small, damaged, small));
    expect(error).toBeInstanceOf(RangeError);
    expect(text.match(/"id":"\w+"/g)).toEqual(['"id":"good"', '"id":"good"']);
  });

  test('in a batch that is taken while the stream is aborted, whose reason would say that all was sent', async () => {
    const abort = new AbortController();
    const { text, error } = await send(async () => {
      await Promise.resolve();
      abort.abort(new Error('the end'));
      return eventFrames(good, damaged);
    }, abort);
    expect(error).toBeInstanceOf(RangeError);
    expect(text.match(/"id":"good"/g)).toHaveLength(1);
  });

  test.each(['x', 'x'.repeat(20_000)])(
    'and leaves nothing in the text of the next stream',
    async (body) => {
      await send(() => eventFrames({ ...damaged, body }));
      const { text } = await send(() => eventFrames({ ...good, body: 'x' }, damaged));
      expect(text).toMatch(/^{"id":"good"[^\n]+}\n$/);
    },
  );
});

describe('a stream that is aborted amid an event whose text is long', () => {
  const long = { ...good, body: '\u0001'.repeat(1_000_000) };

  test('sends the rest of it', async () => {
    const abort = new AbortController();
    const { text, error } = await send(() => {
      setImmediate(() => abort.abort(new Error('the end')));
      return eventFrames(good, long, good);
    }, abort);
    expect(error).toMatchObject({ message: 'the end' });
    expect(text.match(/"id":"good"[^\n]+}\n/g)).toHaveLength(3);
  });

  test('ends, if its client has gone', async () => {
    const ended = Promise.withResolvers<unknown>();
    const server = createServer((_request, response) => {
      const abort = new AbortController();
      response.on('close', () => abort.abort(new Error('gone')));
      const source: FrameSource = {
        isOver: false,
        open: () => {},
        take: () => eventFrames(long),
        close: () => {},
      };
      pump(source, new ResponseSink(abort.signal, response, JSON_LINES)).catch(ended.resolve);
    });
    server.listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
    client.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await once(client, 'data');
    client.destroy();
    expect(await within(ended.promise, 'the end of the stream')).toMatchObject({ message: 'gone' });
  });
});
