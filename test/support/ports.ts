import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';

// The kernel gives ports from 32768 on to clients, and to servers that ask for any port. `npm run cluster` takes those below FIRST.
const FIRST = 13_000;
const COUNT = 32_768 - FIRST;

let tried = Math.floor(Math.random() * COUNT);

/** Has a file for each port that a process of this run of the tests, or of another one of this user, has claimed: its process id. */
const CLAIMS = join(tmpdir(), `feed-test-ports-${userInfo().uid}`);
mkdirSync(CLAIMS, { recursive: true });

const claims: string[] = [];
process.once('exit', () => claims.forEach((path) => rmSync(path, { force: true })));

/** Claims a port until this process ends. Returns false if another process has, though nothing may listen there now. */
function claim(port: number): boolean {
  const path = join(CLAIMS, String(port));
  try {
    writeFileSync(path, String(process.pid), { flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    // For the next one who comes by.
    if (!isHeld(path)) rmSync(path, { force: true });
    return false;
  }
  claims.push(path);
  return true;
}

/** Returns false if the process whose claim this is has ended. */
function isHeld(path: string): boolean {
  try {
    return process.kill(Number(readFileSync(path, 'utf8')), 0);
  } catch {
    return false;
  }
}

/**
 * Returns a port that is free now. Nothing takes it by chance before something listens there, or while that is away: a client
 * that tries to connect to a server which is away could get any other port for its own, and the server would not get it back.
 * Nor does another run of the tests.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST + (tried++ % COUNT);
    if (!claim(port)) continue;
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
