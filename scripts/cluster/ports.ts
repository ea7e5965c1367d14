import { once } from 'node:events';
import { createServer } from 'node:net';

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
const FREE = 3_000;

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
 * ports free.
 */
export async function freePorts(): Promise<Ports> {
  const ports: Record<string, number> = {};
  // All are held until the last one is found, so that none comes twice.
  const servers = [];
  for (const what of Object.keys(USUAL)) {
    for (;;) {
      const port = FIRST_FREE + Math.floor(Math.random() * FREE);
      const server = createServer().listen(port, HOST);
      const isFree = await once(server, 'listening').then(
        () => true,
        () => false,
      );
      if (!isFree) continue;
      ports[what] = port;
      servers.push(server);
      break;
    }
  }
  for (const server of servers) server.close();
  return ports as Ports;
}
