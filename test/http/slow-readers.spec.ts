import { existsSync, readFileSync } from 'node:fs';
import { connect as connectTcp, type Socket } from 'node:net';
import { once } from 'node:events';
import { expect, onTestFinished, test } from 'vitest';
import { upload } from '../support/client.js';
import { EventStream } from '../support/http.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually, until } from '../support/wait.js';

const STALLED = 1_000;
/** The memory that a stalled watch may take: 64 KiB, and half as much that is not collected yet. */
const KIB_EACH = 96;
/** More than the kernel holds for a socket, and more than the log keeps in memory. */
const EVENTS = 3_000;
const BODY_BYTES = 16_000;

/** Returns the process's anonymous memory (memory that is not of a mapped file), in KiB. */
const anonymousMemory = ({ process: { pid } }: ServiceProcess): number =>
  Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);

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
    if (!existsSync('/proc/self/status')) {
      console.warn('skipped: there is no /proc to see memory in');
      return;
    }
    const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
    const { httpAddress } = service;
    const client = service.connect();
    const body = 'x'.repeat(bodyBytes);
    const store = async (topic: string) => {
      const events = Array.from({ length: count }, (_, i) => ({ topic, id: `${topic}${i}`, body }));
      expect((await upload(client, events)).result?.received).toBe(count);
    };
    const follow = async () => {
      const stream = await EventStream.open(httpAddress, 'topic=live&from=earliest');
      await stream.has(count);
      stream.close();
    };
    await store('busy');
    await store('live');
    // The service's memory grows to its usual size before.
    for (let i = 0; i < 3; i++) await follow();
    const before = anonymousMemory(service);
    const stalled = await Promise.all(
      Array.from({ length: STALLED }, () => stall(httpAddress, 'busy')),
    );
    // Other work goes on, and has V8 collect what nobody holds any more.
    await eventually(async () => {
      await follow();
      const each = (anonymousMemory(service) - before) / STALLED;
      console.log(`${each.toFixed(1)} KiB for each reader that reads nothing`);
      expect(each).toBeLessThan(KIB_EACH);
    }, 60_000);
    // While a thousand sockets are full, the kernel gives each of them very little.
    for (const socket of stalled.slice(1)) socket.destroy();
    let read = 0;
    stalled[0].on('data', (chunk: Buffer) => (read += chunk.length)).resume();
    await until(() => read > count * bodyBytes, 'all events of a reader that reads again');
  },
  200_000,
);
