import { expect, onTestFinished, test, vi } from 'vitest';
import { Pings } from '../../src/grpc/transport/pings.js';
import { h2, PING, PREFACE, RawSocket, SETTINGS } from '../faults/raw-socket.js';
import { standStill, until } from '../support/wait.js';
import { serve } from './harness.js';

/** A client that is silent for `time` milliseconds gets a PING, and one that is silent for `timeout` more is dead. */
const KEEPALIVE = { time: 400, timeout: 300 };
const ACK = 1;

/** The client is in the server's process, which may not stand still for so long by itself. */
const BUSY = { ...KEEPALIVE, timeout: 2_000 };

/** Connects a client that sends nothing by itself, and calls `onPing` with the answer to each PING. */
async function silentClient(
  onPing: (client: RawSocket, answer: Buffer) => void,
  keepalive = KEEPALIVE,
) {
  const { address } = await serve({}, { keepalive });
  const client = await RawSocket.connect(address);
  const asked = () => client.frames.filter(({ type, flags }) => type === PING && flags !== ACK);
  let pings = 0;
  client.socket.on('data', () => {
    for (const { payload } of asked().slice(pings)) {
      pings++;
      onPing(client, h2(PING, ACK, 0, payload));
    }
  });
  await client.send(PREFACE, h2(SETTINGS, 0, 0));
  return { client, pings: () => pings };
}

test('a client whose answer came while the server stood still is not taken for dead', async () => {
  const { client, pings } = await silentClient(({ socket }, answer) => {
    socket.write(answer);
    // The answer has come, and when the server gets to read it, its time is over.
    standStill(BUSY.timeout + 500);
  }, BUSY);
  await until(() => pings() >= 3 || client.isClosed, 'three PINGs');
  expect(await client.state()).toBe('open');
});

test('a client whose PING could not leave while the server stood still is not taken for dead', async () => {
  const { ask } = Pings.prototype as { ask: (this: Pings, callback: () => void) => void };
  const spy = vi.spyOn(Pings.prototype, 'ask').mockImplementation(function (this: Pings, callback) {
    ask.call(this, callback);
    // Node writes the PING later. The server looks at the client again before that, because the time for it has come.
    standStill(BUSY.timeout + 500);
  });
  onTestFinished(() => spy.mockRestore());
  const answers = ({ socket }: RawSocket, answer: Buffer): unknown => socket.write(answer);
  const { client, pings } = await silentClient(answers, BUSY);
  await until(() => pings() >= 3 || client.isClosed, 'three PINGs');
  expect(await client.state()).toBe('open');
});

test('a client that answers no PING is disconnected after the first', async () => {
  const { client, pings } = await silentClient(() => {});
  await until(() => client.isClosed, 'the end of the connection');
  expect(pings()).toBe(1);
});
