import { once } from 'node:events';
import { createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { LimitHits } from '../../src/feed/limit-hits.js';
import { bodyFormatOf } from '../../src/http/body-format.js';
import { HttpCall } from '../../src/http/http-call.js';
import { LineBudget } from '../../src/http/line-budget.js';
import { UploadedFrames } from '../../src/http/uploaded-frames.js';
import { messagesIn } from '../../src/wire/frames.js';
import { within } from '../support/wait.js';

const UPLOAD = { name: 'UploadEvents', endless: false, isStream: true, hasBody: true };
const BATCH_BYTES = 64 * 1024;
const TOPIC = 't'.repeat(200);
/** The most that the frame of one of the small events below takes. */
const FRAME_BYTES = 256;

/** Sends a body over a socket. Returns the frames of an upload with this body, when it has come. */
async function upload(body: string, type: string): Promise<UploadedFrames> {
  const server = createServer().listen(0, '127.0.0.1');
  onTestFinished(() => void server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const headers = { 'content-type': type };
  const sent = httpRequest({ host: '127.0.0.1', port, method: 'POST', headers, agent: false });
  onTestFinished(() => void sent.destroy());
  sent.on('error', () => {});
  sent.end(body);
  const [request, response] = await within(once(server, 'request'), 'the request');
  const call = new HttpCall(UPLOAD, request, response, () => {});
  const budget = new LineBudget(Infinity, new LimitHits());
  return new UploadedFrames(call, bodyFormatOf(request, TOPIC), 1024 * 1024, budget);
}

/** Takes all batches. Returns how many events each has, its bytes, and the error that follows them. */
async function batchesOf(frames: UploadedFrames) {
  const batches: { readonly events: number; readonly bytes: number }[] = [];
  try {
    for await (const { pieces } of frames)
      batches.push({
        events: pieces.flatMap((piece) => [...messagesIn(piece)]).length,
        bytes: pieces.reduce((bytes, piece) => bytes + piece.length, 0),
      });
  } catch (error) {
    return { batches, problem: (error as Error).message };
  }
  return { batches };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

test.for([
  ['text/plain', '\n'],
  ['application/x-ndjson', '{}\n'],
])('an upload holds few of the events of a chunk at once: %s', async ([type, line]) => {
  const frames = await upload(line.repeat(65_536), type);
  const { batches, problem } = await within(batchesOf(frames), 'the end of the body');
  expect(problem).toBeUndefined();
  expect(sum(batches.map(({ events }) => events))).toBe(65_536);
  const largest = Math.max(...batches.map(({ bytes }) => bytes));
  expect(largest).toBeLessThan(BATCH_BYTES + FRAME_BYTES);
});

test('all events before a bad line of a chunk are handed out, and none after it', async () => {
  const body = `${'{}\n'.repeat(3_000)}bad\n${'{}\n'.repeat(3_000)}`;
  const frames = await upload(body, 'application/x-ndjson');
  const { batches, problem } = await within(batchesOf(frames), 'the bad line');
  expect(problem).toBe('it is not JSON');
  expect(sum(batches.map(({ events }) => events))).toBe(3_000);
  await expect(frames.next()).rejects.toThrow('it is not JSON');
});

test('a body that is one event is one batch, however large it is', async () => {
  const body = JSON.stringify({ body: 'x'.repeat(4 * BATCH_BYTES) });
  const { batches, problem } = await batchesOf(await upload(body, 'application/json'));
  expect(problem).toBeUndefined();
  expect(batches.map(({ events }) => events)).toEqual([1]);
});

test('hands out nothing more of a chunk once the upload is ended', async () => {
  const aborted = await upload('\n'.repeat(20_000), 'text/plain');
  await within(aborted.next(), 'the first batch');
  aborted.abort(new Error('ended'));
  await expect(aborted.next()).rejects.toThrow('ended');

  const returned = await upload('\n'.repeat(20_000), 'text/plain');
  await within(returned.next(), 'the first batch');
  await returned.return();
  expect((await returned.next()).done).toBe(true);
});
