import type { Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, onTestFinished, test } from 'vitest';
import { LiveCalls } from '../../src/feed/live-calls.js';
import { runService } from '../support/service.js';
import { standstill, until } from '../support/wait.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Returns the memory (bytes) that is in use after V8 has collected what nobody holds. */
function usedMemory(): number {
  collectGarbage();
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** As objects of node's, five bodies of so many chunks take some 100 MiB. */
const CHUNKS = 60_000;
const MOST_HELD = 16 * 2 ** 20;

/** Starts a service and begins a request with a chunked body on each of five connections to it. */
async function begin(line: string, type: string, settings: Record<string, string> = {}) {
  const { httpAddress, app } = await runService({ FEED_ENGINE: 'memory', ...settings });
  const [host, port] = httpAddress.split(':');
  const served: Socket[] = [];
  (app.getHttpServer() as Server).on('connection', (socket: Socket) => void served.push(socket));
  const bodyHead = `Content-Type: ${type}\r\nTransfer-Encoding: chunked`;
  let answers = '';
  const sockets = Array.from({ length: 5 }, () => {
    const socket = connect({ host, port: Number(port) }).on('error', () => {});
    onTestFinished(() => void socket.destroy());
    socket.write(`${line} HTTP/1.1\r\nHost: localhost\r\n${bodyHead}\r\n\r\n`);
    return socket.on('data', (part) => (answers += part.toString('latin1')));
  });
  return {
    calls: app.get(LiveCalls),
    answers: () => answers,
    write: (text: string): void => {
      for (const socket of sockets) socket.write(text);
    },
    leave: (): void => {
      for (const socket of sockets) socket.resetAndDestroy();
    },
    /** Resolves with how many bytes were read of all connections, once no more are. */
    read: () => standstill(() => served.reduce((sum, { bytesRead }) => sum + bytesRead, 0)),
  };
}

const chunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`;

test('a body that comes in chunks of one byte takes little more memory than its bytes', async () => {
  const { write, read, answers } = await begin('POST /v1/session', 'application/json');
  const before = usedMemory();
  write(chunk(' ').repeat(CHUNKS));
  expect(await read()).toBeGreaterThan(5 * 6 * CHUNKS);
  expect(answers()).toBe('');
  expect(usedMemory() - before).toBeLessThan(MOST_HELD);
  write(chunk('{"token":"x"}') + chunk(''));
  await until(() => answers().split('HTTP/1.1 200').length === 6, 'the answers');
});

test('so does one of an upload that is held back', async () => {
  const { write, read, answers } = await begin('POST /v1/events?topic=t', 'text/plain', {
    FEED_UPLOAD_EVENTS_PER_SECOND: '1',
  });
  write(chunk('x\n'.repeat(1_000)));
  await read();
  const before = usedMemory();
  write(chunk('\n').repeat(CHUNKS));
  // It is read only a little ahead.
  expect(await read()).toBeLessThan(5 * 6 * CHUNKS);
  expect(usedMemory() - before).toBeLessThan(MOST_HELD);
  expect(answers()).toBe('');
});

test('a body that nobody takes is dropped, and a client that leaves behind it is seen', async () => {
  const { write, read, answers, calls, leave } = await begin(
    'GET /v1/events?topic=t',
    'text/plain',
  );
  await until(() => answers().split('HTTP/1.1 200').length === 6, 'the watches');
  const before = usedMemory();
  const body = chunk(' ').repeat(CHUNKS) + chunk(' '.repeat(200_000));
  write(body);
  expect(await read()).toBeGreaterThan(5 * body.length);
  expect(usedMemory() - before).toBeLessThan(MOST_HELD);
  expect([...calls]).toHaveLength(5);
  leave();
  await until(() => [...calls].length === 0, 'the end of the watches');
});
