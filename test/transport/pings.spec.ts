import { once } from 'node:events';
import { createServer, type ServerHttp2Session } from 'node:http2';
import { type AddressInfo, connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { Pings } from '../../src/grpc/transport/pings.js';
import { until } from '../support/wait.js';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const FRAME_HEADER_BYTES = 9;
const SETTINGS = 4;
const PING = 6;
const ACK = 1;

const frame = (type: number, flags: number, payload: Buffer = Buffer.alloc(0)): Buffer =>
  Buffer.concat([Buffer.from([0, 0, payload.length, type, flags, 0, 0, 0, 0]), payload]);

/** A server's session with a client that answers PINGs only when it is told to. */
async function unanswered(): Promise<{ session: ServerHttp2Session; answer: () => void }> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const sessions = once(server, 'session') as Promise<[ServerHttp2Session]>;
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  onTestFinished(() => {
    socket.destroy();
    server.close();
  });
  let received: Buffer = Buffer.alloc(0);
  const pings: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    while (received.length >= FRAME_HEADER_BYTES) {
      const end = FRAME_HEADER_BYTES + received.readUIntBE(0, 3);
      if (received.length < end) return;
      if (received[3] === PING) pings.push(received.subarray(FRAME_HEADER_BYTES, end));
      received = received.subarray(end);
    }
  });
  socket.write(Buffer.concat([PREFACE, frame(SETTINGS, 0)]));
  const [session] = await sessions;
  const answer = (): void => {
    for (const payload of pings.splice(0)) socket.write(frame(PING, ACK, payload));
  };
  return { session, answer };
}

test('a question waits for an answer, also while node refuses further PINGs', async () => {
  const { session, answer } = await unanswered();
  const pings = new Pings(session);
  // Node's default of maxOutstandingPings.
  for (let i = 0; i < 10; i++) expect(pings.send(() => {})).toBe(true);
  expect(pings.send(() => {})).toBe(false);
  let answers = 0;
  pings.ask(() => answers++);
  pings.ask(() => answers++);
  await sleep(200);
  expect(answers).toBe(0);
  await until(() => {
    answer();
    return answers === 2;
  }, 'both answers');
});

test('a question on a connection that ends is answered at once', async () => {
  const { session } = await unanswered();
  session.destroy();
  let answers = 0;
  new Pings(session).ask(() => answers++);
  expect(answers).toBe(1);
});
