import { connect as connectTcp, type Socket } from 'node:net';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { upload } from '../support/client.js';
import { ask, EventStream } from '../support/http.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually, until } from '../support/wait.js';

const STALLED = 1_000;
/** The memory that a stalled watch may hold. What V8 has not collected yet depends on the whole process, and not on how many they are. */
const KIB_EACH = 64;
/** More than the kernel holds for a socket, and more than the log keeps in memory. */
const EVENTS = 3_000;
const BODY_BYTES = 16_000;

const FLAGS = `--expose-gc --import ${fileURLToPath(new URL('held-memory.mjs', import.meta.url))}`;

/** Returns the memory that a service holds once V8 has collected the rest, in KiB. */
async function heldMemory({ process: { pid }, output }: ServiceProcess): Promise<number> {
  const said = (): string[] =>
    [...output.join('').matchAll(/^held (\d+)$/gm)].map(([, bytes]) => bytes);
  const before = said().length;
  process.kill(pid!, 'SIGUSR2');
  await until(() => said().length > before, 'what the service holds');
  return Number(said().at(-1)) / 1024;
}

/** Asks for all events of a topic, and reads nothing. */
async function stall(address: string, topic: string): Promise<Socket> {
  const [host, port] = address.split(':');
  const socket = connectTcp({ host, port: Number(port) });
  socket.on('error', () => {});
  onTestFinished(() => void socket.destroy());
  await once(socket, 'connect');
  socket.write(`GET /v1/events?topic=${topic}&from=earliest HTTP/1.1\r\nhost: ${address}\r\n\r\n`);
  socket.pause();
  return socket;
}

test.each([
  ['large events', BODY_BYTES, EVENTS],
  ['small events', 40, 150_000],
])(
  'a thousand readers of %s that read nothing take little memory, delay no other, and get all once they read',
  async (_name, bodyBytes, count) => {
    const service = await ServiceProcess.start({
      FEED_DATA_DIR: temporaryDirectory(),
      NODE_OPTIONS: FLAGS,
    });
    const { httpAddress } = service;
    const client = service.connect();
    const body = 'x'.repeat(bodyBytes);
    const store = async (topic: string) => {
      const events = Array.from({ length: count }, (_, i) => ({ topic, id: `${topic}${i}`, body }));
      expect((await upload(client, events)).result?.received).toBe(count);
    };
    const follow = async () => {
      const stream = await EventStream.open(httpAddress, 'topic=live&from=earliest');
      await stream.has(count, 120_000);
      stream.close();
    };
    await store('busy');
    await store('live');
    // The service holds the newest events before.
    for (let i = 0; i < 3; i++) await follow();
    const before = await heldMemory(service);
    const stalled = await Promise.all(
      Array.from({ length: STALLED }, () => stall(httpAddress, 'busy')),
    );
    await follow();
    await eventually(async () => {
      const each = ((await heldMemory(service)) - before) / STALLED;
      console.log(`${each.toFixed(1)} KiB for each reader that reads nothing`);
      // Each of them holds something: they have stalled.
      expect(each).toBeGreaterThan(8);
      expect(each).toBeLessThan(KIB_EACH);
    }, 60_000);
    // While a thousand sockets are full, the kernel gives each of them very little.
    for (const socket of stalled.slice(1)) socket.destroy();
    let read = 0;
    stalled[0].on('data', (chunk: Buffer) => (read += chunk.length)).resume();
    await until(() => read > count * bodyBytes, 'all events of a reader that reads again', 120_000);
  },
  400_000,
);

test('readers that read nothing of events whose text is six times as long hold an event each', async () => {
  const service = await ServiceProcess.start({
    FEED_DATA_DIR: temporaryDirectory(),
    NODE_OPTIONS: FLAGS,
  });
  // Each reader is sent another event, so that they share no text.
  const readers = 30;
  const body = '\u0001'.repeat(1_000_000);
  for (let i = 0; i < readers; i++)
    expect((await upload(service.connect(), [{ topic: `t${i}`, body }])).error).toBeUndefined();
  const before = await heldMemory(service);
  const stalled = await Promise.all(
    Array.from({ length: readers }, (_, i) => stall(service.httpAddress, `t${i}`)),
  );
  await until(() => stalled.every(({ bytesRead }) => bytesRead > 0), 'the beginning of each watch');
  await eventually(async () => {
    const { json } = await ask(service.httpAddress, '/v1/streams');
    const { streams } = json as { streams: { events: string }[] };
    expect(streams.map(({ events }) => events)).toEqual(Array(readers).fill('1'));
  });
  const each = ((await heldMemory(service)) - before) / readers;
  console.log(`${each.toFixed(0)} KiB for each reader that reads nothing`);
  expect(each).toBeLessThan(1_000_000 / 1024 + KIB_EACH);
});
