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
 * How long (milliseconds) an event may take to be stored and delivered, whatever others do at that time. What the machine
 * gives to other processes does not count, as far as it says so: these tests share it. Of the disk, and of the process
 * of these tests, it does not.
 */
const MAX_DELAY = 5_000;

/**
 * How much anonymous memory may grow, at any moment: garbage that V8 has not collected yet is most of it, and has its
 * plateau near 330 MiB after 100,000 calls or more; the newest events in memory are 32 MiB, and what a connection may
 * have under way is 16 MiB. A row that would make the service hold what it should refuse is one of 1 GiB and more.
 */
const MAX_GROWTH = 512 * 1024 * 1024;

/** One service for all rows of a file, and others who use it meanwhile: a watch and an upload that never ends. */
export class Bystander {
  readonly seen: string[] = [];
  /** What ended the watch or the upload, if anything did. */
  ended: unknown;
  result: UploadResult | undefined;
  uploaded = 0;
  peak = 0;
  /** The longest that an event took since the last check, milliseconds. */
  slowest = 0;
  readonly before: number | undefined;

  private readonly upload: ClientWritableStream<Partial<Event>>;
  private readonly watch: ClientReadableStream<Event>;
  private readonly timer: NodeJS.Timeout;
  /** When each event was sent that was not seen yet. */
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
    this.timer = setInterval(() => this.tick(), INTERVAL);
  }

  static async start(): Promise<Bystander> {
    const directory = mkdtempSync(join(tmpdir(), 'feed-test-'));
    // end() ends it, after all tests.
    const service = await ServiceProcess.start({ FEED_DATA_DIR: directory }, () => {});
    return new Bystander(service, connect(service.grpcAddress), directory);
  }

  private tick(): void {
    const id = String(this.uploaded++);
    this.sentAt.set(id, this.now());
    this.upload.write({ id, topic: 'bystander', body: 'hello' });
    this.peak = Math.max(this.peak, this.anonymousMemory() ?? 0);
  }

  private see(id: string): void {
    this.seen.push(id);
    this.slowest = Math.max(this.slowest, this.now() - (this.sentAt.get(id) ?? 0));
    this.sentAt.delete(id);
  }

  /** Milliseconds, but for those in which the service would have run and had no processor. */
  private now(): number {
    return performance.now() - waitedForProcessor(this.service.process.pid!);
  }

  /** The most by which its memory grows while something is done, bytes; 0 where there is no /proc. */
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

  /** Bytes, or undefined where there is no /proc. */
  private anonymousMemory(): number | undefined {
    try {
      const status = readFileSync(`/proc/${this.service.process.pid}/status`, 'latin1');
      return Number(/^RssAnon:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024;
    } catch {
      return undefined;
    }
  }

  /** That nothing of what happened until now has disturbed it. */
  async check(): Promise<void> {
    const { exitCode, signalCode } = this.service.process;
    expect({ exitCode, signalCode }).toEqual({ exitCode: null, signalCode: null });
    const count = this.uploaded + 1; // and one more, from after the row
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
  }

  /** Ends the upload, which is acknowledged, and the service. */
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

/** Milliseconds in all that a process's main thread has; 0 where the system does not say. */
function waitedForProcessor(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'latin1').split(' ')[1]) / 1e6;
  } catch {
    return 0;
  }
}

/** Has one for the tests of a file, and checks it after each. */
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
