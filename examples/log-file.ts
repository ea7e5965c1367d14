// Shows what Feed promises, on real input. It uploads the lines of a log file as events through several streams,
// while three watchers of different speed follow them; one of these stops reading for a while. Meanwhile it kills the
// service several times with SIGKILL. In the end each watcher must have the file: each line once, and the lines of
// each stream in their order.
//
//   npm run example:log -- --help
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type Event, type UploadProgress } from '@feed-events/client';
import { compare, readLines, type Share, sharesOf } from './lib/lines.ts';
import { type Options, readOptions } from './lib/options.ts';
import { n, report, sum } from './lib/report.ts';
import { Service } from './lib/service.ts';
import { Watcher } from './lib/watcher.ts';

const TOPIC = 'log.lines';
/** How long the stalled watcher reads nothing. Meanwhile far more is stored than all buffers hold. */
const STALL_SECONDS = 5;
/** If nothing is acknowledged or delivered for this long, the run fails. */
const PATIENCE_SECONDS = 30;

async function main(options: Options): Promise<boolean> {
  const { lines, linesInFile, emptyLines, repairedLines } = readLines(options.file, options.events);
  const service = await Service.create();
  console.log(`file     ${options.file}: ${n(linesInFile)} lines`);
  if (emptyLines > 0) console.log(`         ${n(emptyLines)} of them empty`);
  if (repairedLines > 0) console.log(`         ${n(repairedLines)} of them not UTF-8, repaired`);
  console.log(`events   ${n(lines.length)}, through ${options.streams} streams`);
  console.log(`kills    ${options.kills}, at moments that --seed ${options.seed} chooses`);
  console.log(`service  ${service.grpcAddress}, its data in ${service.directory}\n`);

  const run = new Run(service, sharesOf(lines, options.streams, TOPIC));
  const problem = await run.go(options.kills, randomNumbers(options.seed));
  const exitCode = await service.stop();

  console.log();
  const equal = report(lines, run.shares, run.watchers);
  const breaks = sum(run.uploads.map((upload) => upload.retries));
  console.log(
    `\n${n(run.stored)} events stored through ${options.streams} streams, broken ${n(breaks)} times in all ` +
      `by ${run.kills} kills, in ${(run.milliseconds / 1000).toFixed(1)} s`,
  );
  if (problem !== undefined) console.log(`the run failed: ${messageOf(problem)}`);
  if (exitCode !== 0) console.log(`the service ended with code ${exitCode}, not 0`);
  const good = equal && problem === undefined && exitCode === 0;
  if (good && !options.keep) service.removeData();
  else console.log(`the service's data and output are in ${service.directory}`);
  console.log(good ? 'Every watcher has the file: equal, in order, nothing twice.' : 'NOT RIGHT');
  return good;
}

/** Runs the uploads, the watchers and the kills at the same time. */
class Run {
  readonly shares: readonly Share[];
  readonly uploads: UploadProgress[];
  readonly watchers: Watcher[];
  kills = 0;
  milliseconds = 0;
  private readonly service: Service;
  private readonly total: number;
  private readonly startedAt = performance.now();
  /** The first error of any of them aborts all of them. */
  private readonly abortion = new AbortController();
  private lastMoved = { count: -1, at: 0 };

  constructor(service: Service, shares: readonly Share[]) {
    this.service = service;
    this.shares = shares;
    this.uploads = shares.map(() => ({ taken: 0, stored: 0, retries: 0 }));
    this.total = sum(shares.map(({ length }) => length));
    this.watchers = [
      new Watcher('fast'),
      new Watcher('slow', (count) => (count % 1_000 === 0 ? sleep(40) : undefined)),
      new Watcher('stalled', (count) =>
        count === Math.ceil(this.total / 5) ? this.stall(count) : undefined,
      ),
    ];
  }

  /** The number of events that are acknowledged. */
  get stored(): number {
    return sum(this.uploads.map(({ stored }) => stored));
  }

  private get sent(): number {
    return sum(this.uploads.map(({ taken }) => taken));
  }

  /** Resolves when all is done: with the error that ended the run, or with undefined. */
  async go(kills: number, random: () => number): Promise<unknown> {
    const { signal } = this.abortion;
    const interrupted = (): void => this.abortion.abort(new Error('interrupted'));
    process.once('SIGINT', interrupted).once('SIGTERM', interrupted);
    const observer = setInterval(() => this.observe(), 1_000);
    try {
      this.say(`ready after ${n(await this.service.start())} ms`);
      await this.allOf([
        this.upload(signal),
        ...this.watchers.map((watcher) => this.watch(watcher, signal)),
        this.killAgainAndAgain(kills, random, signal),
      ]);
      // The other watchers stop after the events that they expect. This one reads to the end of the log, so it would
      // also find events that should not be there.
      const afresh = new Watcher('afresh');
      await afresh.readToHead(this.service.grpcAddress, TOPIC, signal);
      this.watchers.push(afresh);
      return undefined;
    } catch (error) {
      return error;
    } finally {
      clearInterval(observer);
      process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
      this.milliseconds = performance.now() - this.startedAt;
    }
  }

  private async allOf(works: readonly Promise<void>[]): Promise<void> {
    for (const work of works) work.catch((error: unknown) => this.abortion.abort(error));
    await Promise.allSettled(works);
    this.abortion.signal.throwIfAborted(); // with the first error
  }

  private async upload(signal: AbortSignal): Promise<void> {
    await using feed = connect(this.service.grpcAddress, { retry: { max: 500 } }); // one connection for all streams
    await this.allOf(
      this.shares.map(async (share, i) => {
        const onProgress = (progress: UploadProgress): void => void (this.uploads[i] = progress);
        // At most so much is in flight when the service is killed.
        await feed.upload(TOPIC, share, { signal, onProgress, maxUnacknowledgedBytes: 2 ** 20 });
      }),
    );
    this.say(`all ${n(this.stored)} events are acknowledged`);
  }

  private async watch(watcher: Watcher, signal: AbortSignal): Promise<void> {
    await watcher.follow(this.service.grpcAddress, TOPIC, this.total, signal);
    this.say(`watcher ${watcher.name} has ${n(watcher.events.length)} events`);
  }

  private async stall(count: number): Promise<void> {
    this.say(`watcher stalled has ${n(count)} events and stops reading for ${STALL_SECONDS} s`);
    await sleep(STALL_SECONDS * 1_000);
    this.say(`watcher stalled reads again, ${n(this.stored - count)} events behind`);
  }

  /**
   * Divides the uploads into as many parts as there are kills, and kills the service at a random moment of each part.
   */
  private async killAgainAndAgain(
    kills: number,
    random: () => number,
    signal: AbortSignal,
  ): Promise<void> {
    // After each kill, this watcher reads only the events that are new since the last kill. To read the whole log
    // would take so long that the uploads would be over before the next kill. The watcher "afresh" reads all of it at
    // the end.
    const log = new Watcher('log');
    for (let kill = 0; kill < kills; kill++) {
      const at = ((kill + 0.1 + 0.8 * random()) / kills) * this.total;
      while (this.sent < at) await sleep(5, undefined, { signal });
      await sleep(50 * random(), undefined, { signal });

      const acknowledged = this.uploads.map(({ stored }) => stored);
      const seen = this.watchers.map(({ events }) => events.length);
      const inFlight = this.sent - sum(acknowledged);
      this.say(
        `kill ${kill + 1}: ${n(sum(acknowledged))} events acknowledged, ${n(inFlight)} in flight; ` +
          `delivered: ${this.delivered}`,
      );
      await this.service.kill();
      this.kills++;
      this.say(`ready again after ${n(await this.service.start())} ms`);
      await log.readToHead(this.service.grpcAddress, TOPIC, signal);
      this.checkNothingLost(log.events, acknowledged, seen);
      this.say(
        `the log has ${n(log.events.length)} events, with all that were acknowledged or delivered`,
      );
    }
  }

  /**
   * Checks that the log has all events that were acknowledged or delivered before the kill.
   *
   * @param log the events of the log after the kill
   * @param acknowledged how many events of each stream were acknowledged
   * @param seen how many events each watcher had
   */
  private checkNothingLost(
    log: readonly Event[],
    acknowledged: readonly number[],
    seen: readonly number[],
  ): void {
    const { reached, wrong } = compare(log, this.shares);
    if (wrong.length > 0) throw new Error(`the log is wrong after the kill: ${wrong.join('; ')}`);
    acknowledged.forEach((count, i) => {
      if (reached[i] >= count) return;
      throw new Error(
        `${count} events of stream ${i} were acknowledged, but the log has only ${reached[i]}`,
      );
    });
    this.watchers.forEach(({ name, events }, i) => {
      const last = seen[i] - 1;
      if (last < 0 || log[last]?.cursor === events[last].cursor) return;
      throw new Error(`event ${seen[i]} of watcher ${name} is not at the same place in the log`);
    });
  }

  /**
   * Prints how far uploads and watchers are. Aborts the run if nothing has moved for PATIENCE_SECONDS, or if the
   * service died.
   */
  private observe(): void {
    this.say(`${n(this.stored)} acknowledged; delivered: ${this.delivered}`);
    const count = this.stored + sum(this.watchers.map(({ events }) => events.length));
    const now = performance.now();
    if (count !== this.lastMoved.count) this.lastMoved = { count, at: now };
    if (now - this.lastMoved.at > PATIENCE_SECONDS * 1_000) {
      this.abortion.abort(new Error(`nothing has moved for ${PATIENCE_SECONDS} s`));
    }
    if (this.service.died) {
      this.abortion.abort(new Error(`the service ended by itself:\n${this.service.lastLines()}`));
    }
  }

  private get delivered(): string {
    return this.watchers.map(({ name, events }) => `${name} ${n(events.length)}`).join(', ');
  }

  private say(text: string): void {
    const seconds = ((performance.now() - this.startedAt) / 1000).toFixed(1);
    console.log(`${seconds.padStart(6)} s  ${text}`);
  }
}

/** Returns a generator of numbers from 0 to 1 that are the same for the same seed (mulberry32). */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

try {
  const options = readOptions();
  if (options && !(await main(options))) process.exitCode = 1;
} catch (error) {
  console.error(messageOf(error));
  process.exitCode = 1;
}
