import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { afterAll, beforeAll } from 'vitest';
import { natsServer } from '../../scripts/nats-server.mjs';
import { testTls } from './tls.js';
import { until } from './wait.js';

/** The nats-server that tests start; undefined where none can be had, which is printed. .ci/run insists on one. */
export const NATS_SERVER: string | undefined = (() => {
  const found = natsServer();
  if ('path' in found) return found.path;
  if (process.env.FEED_TEST_NATS === 'required') throw new Error(found.missing);
  process.stderr.write(`tests with NATS are left out: ${found.missing}\n`);
  return undefined;
})();

/** Credentials of the system account of the servers that tests start. */
export const SYSTEM = { user: 'sys', pass: 'sys' };

/** A nats-server with JetStream, in a directory of its own. */
export class NatsServer {
  private process: ChildProcess | undefined;

  private constructor(
    readonly name: string,
    readonly directory: string,
    readonly port: number,
    readonly monitorPort: number,
    private readonly config: string,
  ) {}

  /** Starts `size` servers; several make a cluster. `jetstream` is put into their block of that name. */
  static async start(
    size = 1,
    { jetstream = 'sync_interval: always', maxPayload = '8MB' } = {},
  ): Promise<NatsServer[]> {
    const ports = await freePorts(3 * size);
    const routes = Array.from({ length: size }, (_, i) => `nats://127.0.0.1:${ports[3 * i + 2]}`);
    const servers = routes.map((_, i) => {
      const directory = mkdtempSync(join(tmpdir(), 'feed-nats-'));
      const [port, monitorPort, routePort] = ports.slice(3 * i);
      const name = `n${i + 1}`;
      const cluster = `cluster { name: test, listen: "127.0.0.1:${routePort}", routes: [${routes.join(', ')}] }`;
      const config = join(directory, 'nats.conf');
      writeFileSync(
        config,
        `server_name: ${name}
listen: 127.0.0.1:${port}
http: 127.0.0.1:${monitorPort}
max_payload: ${maxPayload}
max_pending: 64MB
jetstream { store_dir: "${directory}/data", max_mem: 64GB, max_file: 4GB, ${jetstream} }
accounts { $SYS { users: [{user: sys, password: sys}] }, FEED { jetstream: enabled, users: [{user: feed, password: feed}] } }
no_auth_user: feed
${size > 1 ? cluster : ''}
`,
      );
      return new NatsServer(name, directory, port, monitorPort, config);
    });
    for (const server of servers) server.run();
    await Promise.all(servers.map((server) => server.ready()));
    return servers;
  }

  get url(): string {
    return `nats://127.0.0.1:${this.port}`;
  }

  get monitorUrl(): string {
    return `http://127.0.0.1:${this.monitorPort}`;
  }

  get log(): string {
    return readFileSync(join(this.directory, 'log'), 'utf8');
  }

  /** Runs the server, on the same ports and files as before. */
  run(): void {
    const output = openSync(join(this.directory, 'log'), 'a');
    this.process = spawn(NATS_SERVER!, ['-c', this.config], {
      stdio: ['ignore', output, output],
    });
  }

  /** Waits until the server takes part in its cluster. */
  async ready(): Promise<void> {
    const isHealthy = async (): Promise<boolean> => {
      try {
        return (await fetch(`${this.monitorUrl}/healthz`)).ok;
      } catch {
        return false;
      }
    };
    await until(isHealthy, () => `a healthy nats-server: ${this.log}`, 30_000, 50);
  }

  signal(signal: NodeJS.Signals): void {
    this.process?.kill(signal);
  }

  async kill(): Promise<void> {
    const { process } = this;
    if (!process || process.exitCode !== null || process.signalCode !== null) return;
    const gone = once(process, 'exit');
    process.kill('SIGKILL');
    await gone;
  }

  /** Kills the server and removes its files. */
  async remove(): Promise<void> {
    await this.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }

  connect(): Promise<NatsConnection> {
    return connect({ servers: this.url });
  }
}

/** Returns ports that are free now. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  for (const server of servers) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  }
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  for (const server of servers) server.close();
  return ports;
}

let streams = 0;

/** Returns the settings of a service on a new stream of these servers. It acknowledges what may not be flushed. */
export function jetstreamSettings(servers: readonly NatsServer[]): Record<string, string> {
  return {
    FEED_ENGINE: 'jetstream',
    FEED_NATS_SERVERS: servers.map(({ url }) => url).join(),
    FEED_NATS_STREAM: `E${process.pid}-${streams++}`,
    FEED_NATS_REPLICAS: servers.length === 1 ? '1' : '3',
    FEED_DURABILITY: 'none',
  };
}

/**
 * Starts one nats-server for the tests of a file, unless none can be had. `settings` returns those of a service with an engine,
 * as runService() takes them: on jetstream, on a new stream each time.
 */
export function engineForTests(): { settings: (engine: string) => Record<string, string> } {
  let started: NatsServer[] = [];
  beforeAll(async () => {
    if (NATS_SERVER) started = await NatsServer.start(1, { jetstream: '' });
  });
  afterAll(() => Promise.all(started.map((server) => server.remove())));
  return {
    settings: (engine) =>
      engine === 'jetstream' ? jetstreamSettings(started) : { FEED_ENGINE: engine },
  };
}

/** The engines that tests run on. TLS is the same on all of them. */
export const ENGINES = testTls
  ? ['lmdb']
  : ['lmdb', 'memory', ...(NATS_SERVER ? ['jetstream'] : [])];
