// Runs the built service in a process of its own, and reads what that process costs.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const COMMAND = join(ROOT, 'bin', 'feed-server');
/** The unit of processor time in /proc/<pid>/stat: a hundredth of a second on all usual Linux systems. */
const TICK_MICROSECONDS = 10_000;

export class Service {
  readonly address: string;
  readonly httpAddress: string;
  private readonly child: ChildProcess;
  private readonly directory: string;
  private readonly settings: Readonly<Record<string, string>>;

  /** The time from the start of the process until it listens. */
  readonly startMilliseconds: number;

  private constructor(
    child: ChildProcess,
    directory: string,
    address: string,
    httpAddress: string,
    settings: Readonly<Record<string, string>>,
    startMilliseconds: number,
  ) {
    this.settings = settings;
    this.startMilliseconds = startMilliseconds;
    this.child = child;
    this.directory = directory;
    this.address = address;
    this.httpAddress = httpAddress;
  }

  /**
   * Starts the service with the settings of the environment and, above those, `settings`. Resolves when it listens.
   */
  static async start(
    settings: Readonly<Record<string, string>>,
    directory = mkdtempSync(join(tmpdir(), 'feed-bench-')),
  ): Promise<Service> {
    const begun = performance.now();
    const child = spawn(COMMAND, {
      cwd: ROOT,
      env: {
        ...process.env,
        FEED_DATA_DIR: directory,
        FEED_GRPC_ADDRESS: '127.0.0.1:0',
        FEED_HTTP_ADDRESS: '127.0.0.1:0',
        FEED_LOG_FORMAT: 'json',
        FEED_LOG_LEVEL: 'info',
        NODE_ENV: 'production',
        ...settings,
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const kill = (): void => void child.kill('SIGKILL');
    process.once('exit', kill);
    child.once('exit', () => process.off('exit', kill));
    const [address, httpAddress] = await new Promise<readonly string[]>((resolve) => {
      let output = '';
      child.once('exit', () => resolve([]));
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        output = (output + text).slice(-10_000);
        // This is in the last line that the service logs at its start.
        if (output.includes('an acknowledged event')) {
          resolve(
            ['gRPC', 'HTTP'].map(
              (door) => output.split(`${door} listens on `)[1]?.match(/^[\d.:]+/)?.[0] ?? '',
            ),
          );
        }
      });
    });
    if (address) {
      const startMilliseconds = performance.now() - begun;
      return new Service(child, directory, address, httpAddress, settings, startMilliseconds);
    }
    throw new Error('the service ended at its start');
  }

  /** Returns the processor time that the process has used, in microseconds; undefined if there is no /proc. */
  cpu(): number | undefined {
    const stat = this.proc('stat');
    if (stat === undefined) return undefined;
    // The fields utime and stime are the 14th and 15th; the second, the program's name in brackets, may hold spaces.
    const [user, system] = stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .slice(11, 13);
    return (Number(user) + Number(system)) * TICK_MICROSECONDS;
  }

  /** Returns the anonymous memory of the process, in KiB; undefined if there is no /proc. */
  memory(): number | undefined {
    const kib = /^RssAnon:\s+(\d+)/m.exec(this.proc('status') ?? '')?.[1];
    return kib === undefined ? undefined : Number(kib);
  }

  /** Ends the process, and starts another on the same log. */
  async restart(): Promise<Service> {
    await this.end();
    return Service.start(this.settings, this.directory);
  }

  /**
   * Like restart(), but first removes the note `log/opened`, so that the start reads all of the log as if it were a
   * copy.
   */
  async restartAsCopy(): Promise<Service> {
    await this.end();
    rmSync(join(this.directory, 'log', 'opened'));
    return Service.start(this.settings, this.directory);
  }

  /** Returns how many bytes the log's file takes on the disk. */
  logBytes(): number {
    return statSync(join(this.directory, 'log', 'data.mdb')).blocks * 512;
  }

  /** Ends the process, and removes its data. */
  async stop(): Promise<void> {
    await this.end();
    rmSync(this.directory, { recursive: true, force: true });
  }

  private async end(): Promise<void> {
    this.child.kill('SIGTERM');
    if (this.child.exitCode === null) await once(this.child, 'exit');
  }

  private proc(file: string): string | undefined {
    try {
      return readFileSync(`/proc/${this.child.pid}/${file}`, 'latin1');
    } catch {
      return undefined;
    }
  }
}
