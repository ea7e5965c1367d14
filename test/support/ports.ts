import { once } from 'node:events';
import { createServer } from 'node:net';

// The kernel gives ports from 32768 on to clients, and to servers that ask for any port. Each of vitest's workers takes its
// own part of those below, from a random one on, because another run of the tests may be going on. `npm run cluster` takes
// those below FIRST.
const FIRST = 13_000;
const END = 32_768;
const WORKERS = 4;
const PER_WORKER = Math.floor((END - FIRST) / WORKERS);

const worker = Number(process.env.VITEST_POOL_ID ?? 0) % WORKERS;
let taken = Math.floor(Math.random() * PER_WORKER);

/**
 * Returns a port that is free now. Nothing takes it by chance before something listens there, or while that is away: a client
 * that tries to connect to a server which is away could get any other port for its own, and the server would not get it back.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST + worker * PER_WORKER + (taken++ % PER_WORKER);
    const server = createServer().listen(port, '127.0.0.1');
    const isFree = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    if (!isFree) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}

/** Returns host:port with a freePort(). */
export async function freeAddress(): Promise<string> {
  return `127.0.0.1:${await freePort()}`;
}

/** Returns the settings of a service that starts more than once on the same addresses. */
export async function freeAddresses(): Promise<
  Record<'FEED_GRPC_ADDRESS' | 'FEED_HTTP_ADDRESS', string>
> {
  return { FEED_GRPC_ADDRESS: await freeAddress(), FEED_HTTP_ADDRESS: await freeAddress() };
}
