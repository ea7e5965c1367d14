import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { onTestFinished } from 'vitest';
import { readConfig } from '../../src/config/config.js';
import { type Service, startService } from '../../src/service.js';
import { connect, type FeedClient } from './client.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A directory that is gone after the test. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'feed-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export interface Running extends Service {
  readonly client: FeedClient;
  /** What it logged, as objects. */
  readonly log: Record<string, unknown>[];
}

/** The whole service, in this process, on free ports; the settings are environment variables. */
export async function runService(settings: Record<string, string> = {}): Promise<Running> {
  const log: Record<string, unknown>[] = [];
  const logger = pino(
    { level: 'debug' },
    { write: (line: string) => void log.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const config = readConfig(
    {
      FEED_GRPC_ADDRESS: '127.0.0.1:0',
      FEED_HTTP_ADDRESS: '127.0.0.1:0',
      FEED_DATA_DIR: temporaryDirectory(),
      FEED_DRAIN_TIMEOUT: '1s',
      ...settings,
    },
    false,
  );
  const service = await startService(config, logger);
  const client = connect(service.grpcAddress);
  onTestFinished(async () => {
    client.close();
    await service.app.close();
  });
  return { ...service, client, log };
}

/** Is told what to do at the end; a test's own end where nobody says otherwise. */
export type AtEnd = (end: () => void) => void;

/** The built service in a process of its own. */
export class ServiceProcess {
  readonly output: string[] = [];
  grpcAddress = '';
  httpAddress = '';
  readonly exited: Promise<{ code: number | null; signal: string | null }>;

  private constructor(readonly process: ChildProcess) {
    for (const stream of [process.stdout!, process.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => this.output.push(text));
    }
    this.exited = new Promise((resolve) =>
      process.on('exit', (code, signal) => resolve({ code, signal })),
    );
  }

  /** Starts it as a user does. */
  static npmStart(settings: Record<string, string>): ServiceProcess {
    return ServiceProcess.run(['npm', 'start', '--silent'], settings);
  }

  /** Starts it and does not wait for anything. */
  static spawn(settings: Record<string, string>, atEnd?: AtEnd): ServiceProcess {
    return ServiceProcess.run(
      [join(root, 'node_modules', '.bin', 'node'), 'dist/main.js'],
      settings,
      atEnd,
    );
  }

  private static run(
    [program, ...args]: readonly string[],
    settings: Record<string, string>,
    atEnd: AtEnd = onTestFinished,
  ): ServiceProcess {
    const child = spawn(program, args, {
      cwd: root,
      env: {
        PATH: process.env.PATH,
        FEED_GRPC_ADDRESS: '127.0.0.1:0',
        FEED_HTTP_ADDRESS: '127.0.0.1:0',
        ...settings,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    atEnd(() => void child.kill('SIGKILL'));
    return new ServiceProcess(child);
  }

  /** Starts it and waits until it is ready. */
  static async start(settings: Record<string, string>, atEnd?: AtEnd): Promise<ServiceProcess> {
    const service = ServiceProcess.spawn(settings, atEnd);
    await service.ready();
    return service;
  }

  async ready(): Promise<void> {
    const listening = /listens on ([\d.:]+)/g;
    for (;;) {
      const addresses = [...this.output.join('').matchAll(listening)].map(([, address]) => address);
      if (addresses.length === 2) {
        [this.grpcAddress, this.httpAddress] = addresses;
        return;
      }
      const ended = await Promise.race([
        this.exited,
        new Promise<undefined>((resolve) => setTimeout(resolve, 20, undefined)),
      ]);
      if (ended)
        throw new Error(`the service ended: ${JSON.stringify(ended)}\n${this.output.join('')}`);
    }
  }

  kill(signal: NodeJS.Signals): Promise<{ code: number | null; signal: string | null }> {
    this.process.kill(signal);
    return this.exited;
  }

  connect(): FeedClient {
    const client = connect(this.grpcAddress);
    onTestFinished(() => client.close());
    return client;
  }
}
