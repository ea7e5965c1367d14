import { once } from 'node:events';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { tryLock } from 'fs-native-extensions';

export const HOST = '127.0.0.1';

/** Names each port of the cluster: its usual number, and what listens there. */
const USUAL = {
  'NATS of nats-1': 4222,
  'NATS of nats-2': 4223,
  'NATS of nats-3': 4224,
  'routes of nats-1': 6222,
  'routes of nats-2': 6223,
  'routes of nats-3': 6224,
  'monitoring of nats-1': 8222,
  'monitoring of nats-2': 8223,
  'monitoring of nats-3': 8224,
  'gRPC of feed-1': 50051,
  'gRPC of feed-2': 50052,
  'HTTP of feed-1': 8080,
  'HTTP of feed-2': 8081,
} as const;

// Ports from 32768 on are the kernel's to give, and the tests have those from 13000 on (test/support/ports.ts).
const FIRST_FREE = 10_000;
/** All ports of a cluster are in one block of so many: more than it needs, because other programs may have some. */
const BLOCK = 20;
const BLOCKS = 150;

export type Ports = Readonly<Record<keyof typeof USUAL, number>>;

/** Returns the usual ports. Throws if some are taken, and names them. */
export async function usualPorts(): Promise<Ports> {
  const taken: string[] = [];
  for (const [what, port] of Object.entries(USUAL)) {
    const server = createServer().listen(port, HOST);
    try {
      await once(server, 'listening');
    } catch {
      taken.push(`${port} (${what})`);
    }
    server.close();
  }
  if (taken.length > 0)
    throw new Error(
      `these ports are taken: ${taken.join(', ')}. Stop what has them, or take any free ones: npm run cluster -- --any-ports`,
    );
  return USUAL;
}

/**
 * Returns ports that are free now, below those that the kernel gives to clients: a replica that is started again finds its
 * ports free. They come from a block that is locked until this process ends, because another cluster would else take them
 * for free before the programs of this one listen there, or while one is away. Throws if no block has as many.
 */
export async function freePorts(): Promise<Ports> {
  const directory = join(tmpdir(), `feed-cluster-ports-${userInfo().uid}`);
  mkdirSync(directory, { recursive: true });
  const first = Math.floor(Math.random() * BLOCKS);
  for (let n = 0; n < BLOCKS; n++) {
    const block = (first + n) % BLOCKS;
    const lock = openSync(join(directory, String(block)), 'a');
    const ports = tryLock(lock) ? await freePortsOf(block) : undefined;
    if (ports) return ports;
    closeSync(lock);
  }
  throw new Error(
    `too few ports are free from ${FIRST_FREE} to ${FIRST_FREE + BLOCKS * BLOCK}: stop other clusters`,
  );
}

/** Returns free ports of a block, or undefined if it has too few. */
async function freePortsOf(block: number): Promise<Ports | undefined> {
  const names = Object.keys(USUAL);
  const ports: Record<string, number> = {};
  const start = FIRST_FREE + block * BLOCK;
  for (let port = start; port < start + BLOCK && names.length > 0; port++) {
    const server = createServer().listen(port, HOST);
    const isFree = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    if (!isFree) continue;
    ports[names.shift()!] = port;
    server.close();
  }
  return names.length > 0 ? undefined : (ports as Ports);
}
