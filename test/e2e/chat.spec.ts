import { status } from '@grpc/grpc-js';
import { describe, expect, test } from 'vitest';
import type { ChatMessage } from '../../src/gen/feed/v1/feed.js';
import { failure } from '../support/client.js';
import { RawClient } from '../support/raw-client.js';
import { runService } from '../support/service.js';

describe('Chat', () => {
  test('answers each message with its echo, in order, and ends when the client half-closes', async () => {
    const { client } = await runService({ FEED_ENGINE: 'memory' });
    const call = client.Chat();
    const answers: ChatMessage[] = [];
    call.on('data', (message: ChatMessage) => answers.push(message));
    for (let i = 0; i < 1000; i++)
      call.write({ from: 'me', text: `message ${i} ${'ü'.repeat(i % 50)}` });
    call.end();
    const ended = new Promise((resolve) => call.on('status', ({ code }) => resolve(code)));
    expect(await ended).toBe(status.OK);
    expect(answers).toEqual(
      Array.from({ length: 1000 }, (_, i) => ({
        from: 'server',
        text: `echo: message ${i} ${'ü'.repeat(i % 50)}`,
        room: '',
      })),
    );
  });

  test('of a message that is none ends with its status', async () => {
    const { grpcAddress } = await runService({ FEED_ENGINE: 'memory' });
    for (const bad of [
      Buffer.from([0x12, 0x02, 0xff, 0xff]),
      Buffer.from([0x12, 0x05]),
      Buffer.from([0x10, 0x01]),
    ]) {
      const raw = await RawClient.connect(grpcAddress);
      const call = raw.open('Chat').drop().send(bad);
      expect((await call.trailers)?.['grpc-status']).toBe(String(status.INVALID_ARGUMENT));
      raw.close();
    }
  });

  test('with a room is not there yet, and says so', async () => {
    const { client } = await runService({ FEED_ENGINE: 'memory' });
    const call = client.Chat();
    call.write({ room: 'lobby', text: 'hello' });
    expect((await failure(call)).code).toBe(status.UNIMPLEMENTED);
  });
});
