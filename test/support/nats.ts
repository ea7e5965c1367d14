import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { afterAll, beforeAll } from 'vitest';
import { natsServer } from '../../scripts/nats-server.mjs';
import { freePort } from './ports.js';
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

/** Makes a server flush before it answers. */
export const FLUSHES = 'sync_interval: always';

export interface NatsOptions {
  /** Is put into the block of that name: the same for all, or one for each. By default, servers flush. */
  readonly jetstream?: string | readonly string[];
  /** Is put into the block `jetstream`, too: what the servers may store. */
  readonly limits?: string;
  /** Who may connect, and how. */
  readonly access?: string;
  readonly maxPayload?: string;
  /** The directory in which each server keeps its streams. By default, it is one of its own. */
  readonly stores?: readonly string[];
  /**
   * Returns the host:port by which a server reaches the routes of another one, which are at `address`. Servers are named by
   * their index. By default, they reach each other directly.
   */
  readonly routeVia?: (address: string, from: number, to: number) => Promise<string>;
}

/** Accounts of a server: one for Feed, whose user needs no name, and the system account. */
const ACCOUNTS = `accounts { $SYS { users: [{user: sys, password: sys}] }, FEED { jetstream: enabled, users: [{user: feed, password: feed}] } }
no_auth_user: feed`;

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

  /** Starts `size` servers; several make a cluster. */
  static async start(size = 1, options: NatsOptions = {}): Promise<NatsServer[]> {
    const {
      jetstream = FLUSHES,
      limits = 'max_mem: 64GB, max_file: 4GB',
      maxPayload = '8MB',
      access = ACCOUNTS,
      stores = [],
      routeVia,
    } = options;
    const ports: number[] = [];
    while (ports.length < 3 * size) ports.push(await freePort());
    const addresses = Array.from({ length: size }, (_, i) => `127.0.0.1:${ports[3 * i + 2]}`);
    const making = addresses.map(async (address, i) => {
      const directory = mkdtempSync(join(tmpdir(), 'feed-nats-'));
      const [port, monitorPort] = ports.slice(3 * i);
      const name = `n${i + 1}`;
      const route = async (to: string, k: number): Promise<string> =>
        routeVia && k !== i ? routeVia(to, i, k) : to;
      const routes = await Promise.all(addresses.map(route));
      // With links, servers must find each other and be found by them alone: nobody listens on port 1.
      const hidden = routeVia ? ', no_advertise: true, advertise: "127.0.0.1:1"' : '';
      const urls = routes.map((to) => `nats://${to}`);
      const cluster = `cluster { name: test, listen: "${address}"${hidden}, routes: [${urls.join(', ')}] }`;
      const store = `store_dir: "${stores[i] ?? directory}/data", ${limits}`;
      const config = join(directory, 'nats.conf');
      writeFileSync(
        config,
        `server_name: ${name}
listen: 127.0.0.1:${port}
http: 127.0.0.1:${monitorPort}
max_payload: ${maxPayload}
max_pending: 64MB
jetstream { ${store}, ${typeof jetstream === 'string' ? jetstream : jetstream[i]} }
${access}
${size > 1 ? cluster : ''}
`,
      );
      return new NatsServer(name, directory, port, monitorPort, config);
    });
    const servers = await Promise.all(making);
    for (const server of servers) server.run();
    await Promise.all(servers.map((server) => server.ready()));
    return servers;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  get url(): string {
    return `nats://${this.address}`;
  }

  get monitorUrl(): string {
    return `http://127.0.0.1:${this.monitorPort}`;
  }

  get log(): string {
    return readFileSync(join(this.directory, 'log'), 'utf8');
  }

  private get isRunning(): boolean {
    const { process } = this;
    return process !== undefined && process.exitCode === null && process.signalCode === null;
  }

  /** Runs the server, unless it runs, on the same ports and files as before. */
  run(): void {
    if (this.isRunning) return;
    const output = openSync(join(this.directory, 'log'), 'a');
    this.process = spawn(NATS_SERVER!, ['-c', this.config], {
      stdio: ['ignore', output, output],
    });
    closeSync(output);
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
    await until(isHealthy, () => `a healthy nats-server: ${this.log}`, 120_000, 50);
  }

  signal(signal: NodeJS.Signals): void {
    this.process?.kill(signal);
  }

  /**
   * Stops the server (SIGSTOP) and resolves once it answers no more. The signal stops one thread, which then stops the others: on a busy
   * machine they answer until that thread runs. Only Linux shows this; elsewhere the method resolves at once.
   */
  async halt(): Promise<void> {
    this.signal('SIGSTOP');
    const stat = `/proc/${this.process!.pid}/stat`;
    if (!existsSync(stat)) return;
    // The state follows the name, which stands in brackets (proc_pid_stat(5)).
    await until(
      () => readFileSync(stat, 'latin1').includes(') T '),
      'a nats-server that stands still',
    );
  }

  async kill(): Promise<void> {
    if (!this.isRunning) return;
    const gone = once(this.process!, 'exit');
    this.process!.kill('SIGKILL');
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

let streams = 0;

/** Returns the settings of a service on a new stream of these servers. It acknowledges what may not be flushed. */
export function jetstreamSettings(
  servers: readonly { readonly url: string }[],
): Record<string, string> {
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
