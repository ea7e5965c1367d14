import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ClientReadableStream, ClientWritableStream } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import type { Event, UploadResult } from '../../src/gen/feed/v1/feed.js';
import type { FeedClient } from '../support/client.js';
import { connect } from '../support/client.js';
import { ServiceProcess } from '../support/service.js';
import { until } from '../support/wait.js';

const INTERVAL = 20;

/**
 * How long (milliseconds) an event may take to be stored and delivered, whatever other clients do meanwhile. The time in
 * which the service waits for a processor does not count, because these tests share the machine with others, and of a pause of
 * the tests' own process only MAX_TICK counts. Delays by the disk do count, because they can't be told apart.
 */
const MAX_DELAY = 5_000;
const MAX_TICK = 100;

/**
 * How far anonymous memory may grow at any moment. Most of it is garbage that V8 has not collected yet, which stops growing
 * near 330 MiB after 100,000 calls; the newest events take 32 MiB, and a connection's messages up to 16 MiB. A service that
 * held what it should refuse would take 1 GiB and more.
 */
const MAX_GROWTH = 512 * 1024 * 1024;

/** A service for all tests of a file, with a watch and an endless upload that the tests' calls must not disturb. */
export class Bystander {
  readonly seen: string[] = [];
  /** The error that ended the watch or the upload, if one of them has ended. */
  ended: unknown;
  result: UploadResult | undefined;
  uploaded = 0;
  peak = 0;
  /** The longest time (milliseconds) that an event took since the last check. */
  slowest = 0;
  readonly before: number | undefined;

  private readonly upload: ClientWritableStream<Partial<Event>>;
  private readonly watch: ClientReadableStream<Event>;
  private readonly timer: NodeJS.Timeout;
  /** A clock (milliseconds) that stands still while the service waits for a processor, and while this process does not run. */
  private clock = 0;
  /** When the clock was moved on last. */
  private movedAt: number;
  /** When each event was sent that the watch has not seen yet. */
  private readonly sentAt = new Map<string, number>();

  private constructor(
    readonly service: ServiceProcess,
    private readonly client: FeedClient,
    private readonly directory: string,
  ) {
    this.watch = client.Watch({ topic: 'bystander', position: 1 });
    this.watch.on('data', ({ id }: Event) => this.see(id));
    this.watch.on('error', (error) => (this.ended ??= error));
    this.watch.on('end', () => (this.ended ??= 'the watch ended'));
    this.upload = client.UploadEvents((error, result) => {
      this.result = result;
      this.ended ??= error ?? 'the upload ended';
    });
    this.before = this.anonymousMemory();
    this.movedAt = this.now();
    this.timer = setInterval(() => this.tick(), INTERVAL);
  }

  static async start(): Promise<Bystander> {
    const directory = mkdtempSync(join(tmpdir(), 'feed-test-'));
    // The service is ended by end(), after all tests of the file.
    const service = await ServiceProcess.start({ FEED_DATA_DIR: directory }, () => {});
    return new Bystander(service, connect(service.grpcAddress), directory);
  }

  private tick(): void {
    const now = this.now();
    this.clock += Math.min(now - this.movedAt, MAX_TICK);
    this.movedAt = now;
    const id = String(this.uploaded++);
    this.sentAt.set(id, this.clock);
    this.upload.write({ id, topic: 'bystander', body: 'hello' });
    this.peak = Math.max(this.peak, this.anonymousMemory() ?? 0);
  }

  private see(id: string): void {
    this.seen.push(id);
    this.slowest = Math.max(this.slowest, this.clock - (this.sentAt.get(id) ?? 0));
    this.sentAt.delete(id);
  }

  /** The time (milliseconds) without that in which the service waited for a processor. */
  private now(): number {
    return performance.now() - waitedForProcessor(this.service.process.pid!);
  }

  /** Returns the most by which the service's memory grows during some work, in bytes; 0 where there is no /proc. */
  async growth(work: () => Promise<void>): Promise<number> {
    const start = this.anonymousMemory() ?? 0;
    let peak = start;
    const look = (): void => void (peak = Math.max(peak, this.anonymousMemory() ?? 0));
    const timer = setInterval(look, INTERVAL);
    try {
      await work();
      look();
    } finally {
      clearInterval(timer);
    }
    return peak - start;
  }

  /** Returns the service's anonymous memory in bytes, or undefined where there is no /proc. */
  private anonymousMemory(): number | undefined {
    try {
      const status = readFileSync(`/proc/${this.service.process.pid}/status`, 'latin1');
      return Number(/^RssAnon:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024;
    } catch {
      return undefined;
    }
  }

  /** Checks that the watch, the upload and the service were not disturbed so far. */
  async check(): Promise<void> {
    const { exitCode, signalCode } = this.service.process;
    expect({ exitCode, signalCode }).toEqual({ exitCode: null, signalCode: null });
    const count = this.uploaded + 1; // one of them is sent after the test
    await until(
      () => this.seen.length >= count || this.ended !== undefined,
      () => `${count} of its events: it has seen ${this.seen.length}`,
    );
    expect(this.ended).toBeUndefined();
    expect(this.seen).toEqual(this.seen.map((_, i) => String(i)));
    const { slowest } = this;
    this.slowest = 0;
    expect(slowest, 'the slowest of its events, ms').toBeLessThan(MAX_DELAY);
    if (this.before !== undefined) expect(this.peak - this.before).toBeLessThan(MAX_GROWTH);
    expect((await fetch(`http://${this.service.httpAddress}/readyz`)).status).toBe(200);
    expect(await this.ownFaults()).toEqual([]);
  }

  /** Returns the samples of calls that ended by a fault of the service, which is what the alert FeedInternalErrors selects. */
  private async ownFaults(): Promise<string[]> {
    const page = await (await fetch(`http://${this.service.httpAddress}/metrics`)).text();
    const samples = page.split('\n').filter((line) => line.startsWith('feed_calls_total'));
    return samples.filter((line) => /status="(INTERNAL|UNKNOWN)",reason=""\} [^0]/.test(line));
  }

  /** Ends the upload, checks that it is acknowledged, and ends the service. */
  async end(): Promise<void> {
    clearInterval(this.timer);
    try {
      await until(() => this.seen.length >= this.uploaded, 'its last events');
      expect(this.ended).toBeUndefined();
      this.upload.end();
      await until(() => this.ended !== undefined, 'the acknowledgement');
      expect(this.result).toMatchObject({ received: this.uploaded, duplicates: 0 });
      if (this.before === undefined) process.stdout.write('memory not measured: no /proc here\n');
    } finally {
      this.watch.cancel();
      this.client.close();
      await this.service.kill('SIGKILL');
      rmSync(this.directory, { recursive: true, force: true });
    }
  }
}

/** Returns how long (milliseconds) a process's main thread has waited for a processor; 0 where the system can't tell. */
function waitedForProcessor(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'latin1').split(' ')[1]) / 1e6;
  } catch {
    return 0;
  }
}

/** Starts a bystander for the tests of a file, and checks it after each test. */
export function withBystander(): { readonly bystander: Bystander; readonly address: string } {
  let bystander: Bystander;
  beforeAll(async () => {
    bystander = await Bystander.start();
  });
  afterEach(() => bystander.check());
  afterAll(() => bystander.end());
  return {
    get bystander() {
      return bystander;
    },
    get address() {
      return bystander.service.grpcAddress;
    },
  };
}
