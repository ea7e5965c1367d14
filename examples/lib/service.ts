// Runs the service in a process of its own, which can be killed and started again on the same data.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const COMMAND = join(ROOT, 'bin', 'feed-server');
const START_TIMEOUT = 30_000;

export class Service {
  /** The directory of the service's data and of its output. */
  readonly directory = mkdtempSync(join(tmpdir(), 'feed-example-'));
  readonly output = join(this.directory, 'service.log');
  readonly grpcAddress: string;
  private readonly httpAddress: string;
  private process: ChildProcess | undefined;

  private constructor(grpcPort: number, httpPort: number) {
    this.grpcAddress = `127.0.0.1:${grpcPort}`;
    this.httpAddress = `127.0.0.1:${httpPort}`;
    process.once('exit', () => this.process?.kill('SIGKILL'));
  }

  static async create(): Promise<Service> {
    return new Service(await freePort(20_000), await freePort(26_000));
  }

  /** Resolves when the service is ready, with the milliseconds that took. */
  async start(): Promise<number> {
    const startedAt = performance.now();
    const output = openSync(this.output, 'a');
    const service = spawn(COMMAND, {
      cwd: ROOT,
      env: {
        ...Object.fromEntries(
          Object.entries(process.env).filter(([name]) => !name.startsWith('FEED_')),
        ),
        FEED_GRPC_ADDRESS: this.grpcAddress,
        FEED_HTTP_ADDRESS: this.httpAddress,
        FEED_DATA_DIR: join(this.directory, 'data'),
        FEED_LOG_LEVEL: 'info',
      },
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    this.process = service;
    while (!(await this.isReady())) {
      if (hasEnded(service))
        throw new Error(`the service ended at its start:\n${this.lastLines()}`);
      if (performance.now() - startedAt > START_TIMEOUT) {
        throw new Error(`the service is not ready after ${START_TIMEOUT / 1000} s`);
      }
      await sleep(20);
    }
    return performance.now() - startedAt;
  }

  /** True if the service has ended by itself. */
  get died(): boolean {
    return this.process !== undefined && hasEnded(this.process);
  }

  /** Ends the service as a crash would. */
  async kill(): Promise<void> {
    await this.end('SIGKILL');
  }

  /** Lets the service drain and end. Resolves with its exit code. */
  async stop(): Promise<number | null> {
    return this.end('SIGTERM');
  }

  removeData(): void {
    rmSync(this.directory, { recursive: true });
  }

  lastLines(): string {
    return readFileSync(this.output, 'utf8').split('\n').slice(-10).join('\n');
  }

  private async end(signal: NodeJS.Signals): Promise<number | null> {
    const service = this.process;
    if (!service) return null;
    this.process = undefined;
    if (!hasEnded(service)) {
      service.kill(signal);
      await once(service, 'exit');
    }
    return service.exitCode;
  }

  private async isReady(): Promise<boolean> {
    try {
      const { ok } = await fetch(`http://${this.httpAddress}/readyz`);
      return ok;
    } catch {
      return false;
    }
  }
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

/**
 * Returns a free port between `from` and `from` + 6,000. Those ports are not among the ones that systems give to
 * outgoing connections: one of these could be taken while the service is down, even by a client that tries to connect
 * to it.
 */
async function freePort(from: number): Promise<number> {
  for (;;) {
    const port = from + Math.floor(Math.random() * 6_000);
    const server = createServer();
    try {
      server.listen(port, '127.0.0.1');
      await once(server, 'listening');
      return port;
    } catch {
      // The port is taken: try another.
    } finally {
      server.close();
    }
  }
}
