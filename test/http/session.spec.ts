import { connect } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, onTestFinished, test } from 'vitest';
import { runService } from '../support/service.js';
import { until } from '../support/wait.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Returns the memory (bytes) that is in use after V8 has collected what nobody holds. */
function usedMemory(): number {
  collectGarbage();
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

const HEAD =
  'POST /v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n';
const CHUNKS = 60_000;

test('a body that comes in chunks of one byte takes little more memory than its bytes', async () => {
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  const [host, port] = httpAddress.split(':');
  let answers = '';
  const sockets = Array.from({ length: 5 }, () => {
    const socket = connect({ host, port: Number(port) }).on('error', () => {});
    onTestFinished(() => void socket.destroy());
    return socket.on('data', (part) => (answers += part.toString('latin1')));
  });
  const before = usedMemory();
  for (const socket of sockets) socket.write(HEAD + '1\r\n \r\n'.repeat(CHUNKS));
  // The service shares this process, and reads what it is sent within this time.
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  expect(answers).toBe('');
  // As chunks, the bodies take some 40 MiB.
  expect(usedMemory() - before).toBeLessThan(16 * 2 ** 20);
  for (const socket of sockets) socket.write('d\r\n{"token":"x"}\r\n0\r\n\r\n');
  await until(() => answers.split('HTTP/1.1 200').length === 6, 'the answers');
});

test('a body over 64 KiB is refused with 413', async () => {
  const { httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  const post = (bytes: number) =>
    fetch(`http://${httpAddress}/v1/session`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"token":"x"}'.padEnd(bytes),
    });
  expect((await post(64 * 1024)).status).toBe(200);
  expect((await post(64 * 1024 + 1)).status).toBe(413);
});
