import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CanActivate, Type } from '@nestjs/common';
import { pino } from 'pino';
import { onTestFinished } from 'vitest';
import { readConfig } from '../../src/config/config.js';
import { type Service, startService } from '../../src/process/service.js';
import { connect, type FeedClient } from './client.js';
import { testTls } from './tls.js';
import { until, within } from './wait.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Makes a directory that is removed after the test. */
export function temporaryDirectory(atEnd: AtEnd = onTestFinished): string {
  const directory = mkdtempSync(join(tmpdir(), 'feed-test-'));
  atEnd(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export interface Running extends Service {
  readonly client: FeedClient;
  /** The lines that the service has logged, parsed. */
  readonly log: Record<string, unknown>[];
}

/**
 * Starts the whole service in this process, on free ports. `settings` are environment variables; `guard` takes the place
 * of the service's own.
 */
export async function runService(
  settings: Record<string, string> = {},
  guard?: Type<CanActivate>,
): Promise<Running> {
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
      ...testTls?.settings,
      ...settings,
    },
    false,
  );
  const service = await startService(config, logger, guard);
  const client = connect(service.grpcAddress);
  onTestFinished(async () => {
    client.close();
    await service.app.close();
  });
  return { ...service, client, log };
}

/** Registers a function that is to run at the end, such as vitest's onTestFinished. */
export type AtEnd = (end: () => void | Promise<void>) => void;

/** How long (milliseconds) a service may take to start, and to end, on a busy machine. */
const START_TIMEOUT = 120_000;
const END_TIMEOUT = 55_000;

interface Exit {
  readonly code: number | null;
  readonly signal: string | null;
}

/** The user that the service runs as, and the only group of that user. */
export interface User {
  readonly uid: number;
  readonly gid: number;
}

/** The built service in a process of its own. */
export class ServiceProcess {
  readonly output: string[] = [];
  grpcAddress = '';
  httpAddress = '';
  /** Empty without FEED_HEALTH_ADDRESS. */
  healthAddress = '';
  /** Empty without FEED_METRICS_ADDRESS. */
  metricsAddress = '';
  /** Resolves once the process has ended and all that it wrote is in `output`. */
  readonly exited: Promise<Exit>;
  private hasExited = false;

  private constructor(
    readonly process: ChildProcess,
    /** The settings of its ports, in the order in which it says where they listen. */
    private readonly ports: readonly string[],
  ) {
    for (const stream of [process.stdout!, process.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => this.output.push(text));
    }
    // At "exit", the pipes may still hold its last lines (node's documentation of child_process, "close").
    this.exited = new Promise((resolve) =>
      process.on('close', (code, signal) => {
        this.hasExited = true;
        resolve({ code, signal });
      }),
    );
  }

  /** Starts the service by `npm start`. */
  static npmStart(settings: Record<string, string>): ServiceProcess {
    return ServiceProcess.run(['npm', 'start', '--silent'], settings);
  }

  /** Starts the service and returns before it is ready. */
  static spawn(settings: Record<string, string>, atEnd?: AtEnd, user?: User): ServiceProcess {
    return ServiceProcess.run([join(root, 'bin', 'feed-server')], settings, atEnd, user);
  }

  /** Starts the service by a shell command, such as one that sets limits or redirects its output. */
  static shell(command: string, settings: Record<string, string>): ServiceProcess {
    return ServiceProcess.run(['sh', '-c', command], settings);
  }

  private static run(
    [program, ...args]: readonly string[],
    settings: Record<string, string>,
    atEnd: AtEnd = onTestFinished,
    user?: User,
  ): ServiceProcess {
    const child = spawn(program, args, {
      cwd: root,
      env: {
        PATH: process.env.PATH,
        FEED_GRPC_ADDRESS: '127.0.0.1:0',
        FEED_HTTP_ADDRESS: '127.0.0.1:0',
        ...testTls?.settings,
        ...settings,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...user,
    });
    atEnd(() => killed(child));
    const more = ['FEED_HEALTH_ADDRESS', 'FEED_METRICS_ADDRESS'].filter((name) => settings[name]);
    return new ServiceProcess(child, ['FEED_GRPC_ADDRESS', 'FEED_HTTP_ADDRESS', ...more]);
  }

  /** Starts the service and waits until it is ready. */
  static async start(settings: Record<string, string>, atEnd?: AtEnd): Promise<ServiceProcess> {
    const service = ServiceProcess.spawn(settings, atEnd);
    await service.ready();
    return service;
  }

  /**
   * Waits until the service listens on its ports, and notes their addresses.
   *
   * @param output returns the log, for a service whose log is not its output
   */
  async ready(output = (): string => this.output.join('')): Promise<void> {
    // The character after an address, which shows that the address is complete.
    const addresses = (): string[] =>
      [...output().matchAll(/listens on ([\d.:]+)[^\d.:]/g)].map(([, address]) => address);
    await until(
      () => this.hasExited || addresses().length === this.ports.length,
      () => `a service that listens; it has written: ${output()}`,
      START_TIMEOUT,
    );
    if (this.hasExited)
      throw new Error(`the service ended: ${JSON.stringify(await this.exited)}\n${output()}`);
    const found = addresses();
    const addressOf = (name: string): string => found[this.ports.indexOf(name)] ?? '';
    this.grpcAddress = addressOf('FEED_GRPC_ADDRESS');
    this.httpAddress = addressOf('FEED_HTTP_ADDRESS');
    this.healthAddress = addressOf('FEED_HEALTH_ADDRESS');
    this.metricsAddress = addressOf('FEED_METRICS_ADDRESS');
  }

  /** Sends a signal, and waits for the end of the process. */
  async kill(signal: NodeJS.Signals): Promise<Exit> {
    this.process.kill(signal);
    return this.ended();
  }

  /** Waits for the end of the process: by default, longer than a drain with the default settings takes. */
  ended(timeout = END_TIMEOUT): Promise<Exit> {
    const what = () => `the end of the service; it has written: ${this.output.join('')}`;
    return within(this.exited, what, timeout);
  }

  connect(): FeedClient {
    const client = connect(this.grpcAddress);
    onTestFinished(() => client.close());
    return client;
  }
}

/** Kills a process and waits until it is gone, because a directory that it writes to may be removed next. */
async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}
