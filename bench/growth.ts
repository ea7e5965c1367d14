// Measures how cost grows with topics, watches and the size of the log, and what a slow disk, a long way and an hour
// of work change: npm run bench:growth -- --help
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Call, Connection } from './client.ts';
import { cursorOf, EventMaker, message, readTime, timeOffset } from './events.ts';
import { Link } from './link.ts';
import { Service } from './service.ts';
import { warmUp } from './warm-up.ts';

const USAGE = `npm run bench:growth -- [options]
  --only <text>     run only experiments with this text in their name
  --minutes <n>     how long the soak runs (default: 60)
  --quick           run a tenth of each experiment, to see that it works`;

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    minutes: { type: 'string', default: '60' },
    quick: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const SCALE = options.quick ? 0.1 : 1;
const MIB = 2 ** 20;
/** Events in one write. */
const BATCH = 256;
/** HTTP/2's error code CANCEL: the client resets the stream. */
const CANCEL = 8;

/** The experiments by name. Each yields its results line by line. */
const experiments: Readonly<Record<string, () => AsyncIterable<string>>> = {
  'a slow disk': slowDisk,
  'a long way': longWay,
  'a deep log': deepLog,
  'a million topics': manyTopics,
  '1,000 topics beside 10': topicsBeside,
  '30,000 idle watches': idleWatches,
  'the most memory': mostMemory,
  soak,
};

if (options.help) console.log(USAGE);
else await main();

async function main(): Promise<void> {
  const chosen = Object.entries(experiments).filter(([name]) => name.includes(options.only));
  if (chosen.length === 0) throw new Error(`no experiment has ${options.only} in its name`);
  for (const [name, run] of chosen) {
    console.log(name);
    for await (const line of run()) console.log(`  ${line}`);
  }
}

/** Compares uploads with and without 5 ms more for each flush, which makes commits fewer and larger. */
async function* slowDisk(): AsyncIterable<string> {
  const directory = mkdtempSync(join(tmpdir(), 'feed-bench-'));
  const library = join(directory, 'slow-disk.so');
  const source = fileURLToPath(new URL('slow-disk.c', import.meta.url));
  execFileSync('gcc', ['-shared', '-fPIC', '-O1', '-o', library, source, '-ldl']);
  try {
    const rates: number[] = [];
    for (const [what, settings] of [
      ['the disk as it is', {}],
      ['5 ms more for each flush', { LD_PRELOAD: library }],
    ] as const) {
      const rounds: number[] = [];
      for (let round = 0; round < 3; round++)
        rounds.push(await using(settings, (service) => uploaded(service, 8, 2_000_000 * SCALE)));
      rates.push(median(rounds));
      yield `8 uploads, ${what}: ${thousands(rates.at(-1)!)} events/s`;
    }
    yield `share kept: ${(rates[1] / rates[0]).toFixed(2)}`;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Measures one upload and one watch through a round trip of 50 ms. */
async function* longWay(): AsyncIterable<string> {
  const service = await Service.start({});
  const link = await Link.to(service.address, { delay: 25 });
  try {
    await warmUp(service);
    const events = Math.round(2_000_000 * SCALE);
    const maker = new EventMaker('bench.far', 0);
    const bytes = events * maker.make(1).length;
    const connection = new Connection(link.address);
    let start = performance.now();
    await send(connection, maker, events);
    yield `an upload: ${perSecond(bytes, start)} MB/s`;
    start = performance.now();
    const watch = (await connection.watch('bench.far', 'earliest')).read();
    await watch.has(events);
    yield `a watch: ${perSecond(bytes, start)} MB/s`;
  } finally {
    link.close();
    await service.stop();
  }
}

/** Times how a large log is started, and how a watch begins far behind its head. */
async function* deepLog(): AsyncIterable<string> {
  let service = await Service.start({});
  try {
    await warmUp(service);
    const connection = new Connection(service.address);
    const live = (await connection.watch('bench.deep')).stream;
    const first = new Promise<string>((resolve) =>
      live.once('data', (bytes: Buffer) => resolve(cursorOf(bytes, 0))),
    );
    const events = Math.round(10_000_000 * SCALE);
    const maker = new EventMaker('bench.deep', 0);
    await send(connection, maker, 1);
    const cursor = await first;
    live.destroy();
    for (let i = 0; i < 10; i++) await send(connection, maker, events / 10);
    yield `${thousands(events)} events stored`;
    for (const when of ['before a restart', 'after one']) {
      const resumed = await firstEvents(service, 'bench.deep', [2, cursor]);
      const last = await firstEvents(service, 'bench.deep', [5, events / 2]);
      yield `the first event after a cursor ${thousands(events)} back, ${when}: ${resumed}; of the newest ${thousands(events / 2)}: ${last}`;
      service = await service.restart();
    }
    const body = 16_000;
    const large = new EventMaker('bench.large', 0, body);
    const far = new Connection(service.address);
    const target = Math.round(5 * 2 ** 30 * SCALE);
    for (let sent = 0; sent < target; sent += body * 10_000) await send(far, large, 10_000, 16);
    for (let i = 0; i < 3; i++) {
      const start = performance.now();
      service = await service.restart();
      yield `stop and start with ${(service.logBytes() / 2 ** 30).toFixed(1)} GiB: ${(performance.now() - start).toFixed(0)} ms, of which start ${service.startMilliseconds.toFixed(0)} ms`;
    }
    const known = service.cpu();
    service = await service.restartAsCopy();
    const cpu = known === undefined ? '?' : ((service.cpu()! - known) / 1000).toFixed(0);
    yield `start with a copy of ${(service.logBytes() / 2 ** 30).toFixed(1)} GiB, all of which is read: ${service.startMilliseconds.toFixed(0)} ms, and ${cpu} ms of processor time more than with one that is known`;
  } finally {
    await service.stop();
  }
  const empty = await Service.start({});
  yield `start with an empty log: ${empty.startMilliseconds.toFixed(0)} ms`;
  await empty.stop();
}

/** Measures the memory that stays taken by topics that nobody uses any more. */
async function* manyTopics(): AsyncIterable<string> {
  // With the topic of the warm-up they are one more than the default allows.
  const service = await Service.start({ FEED_MAX_TOPICS: '2000000' });
  try {
    await warmUp(service);
    const connection = new Connection(service.address);
    const step = Math.round(250_000 * SCALE);
    const before = service.memory()!;
    for (let topics = 0; topics < 4 * step; topics += step) {
      const start = performance.now();
      const call = connection.call('UploadEvents');
      for (let i = 0; i < step; i += 100) {
        await call.write(
          Buffer.concat(
            Array.from({ length: 100 }, (_, j) =>
              message([1, `id-${topics + i + j}`], [2, `bench.topic.${topics + i + j}`]),
            ),
          ),
        );
      }
      await call.end();
      const each = (1000 * (performance.now() - start)) / step;
      await sleep(2_000);
      yield `${thousands(topics + step)} topics: ${((service.memory()! - before) / 1024).toFixed(0)} MiB of memory more; ${each.toFixed(1)} us an event of a new topic`;
    }
  } finally {
    await service.stop();
  }
}

/** Compares the cost of a delivery in 1,000 topics of one watch with that in 10 topics of 100 watches. */
async function* topicsBeside(): AsyncIterable<string> {
  // All deliveries to a connection at one moment share a write, so their cost depends on the number of connections.
  for (const connections of [1, 10]) {
    const costs: number[] = [];
    for (const [topics, watchers] of [
      [10, 100],
      [1_000, 1],
    ]) {
      const cost = await deliveryCost(connections, topics, watchers);
      costs.push(cost.delivering);
      yield `${topics} topics with ${watchers} watchers each, ${connections} connections: ${cost.delivering.toFixed(1)} us a delivery, and ${cost.storing.toFixed(1)} us to store an event`;
    }
    yield `ratio: ${(costs[1] / costs[0]).toFixed(2)}`;
  }
}

/**
 * Uploads 10 events a second to each topic all the time, and returns the processor time of a delivery and of storing
 * an event, in microseconds. Delivering is what the service takes more while the watches are open than while they are
 * closed. The result is the median of many short turns, because the cost of storing varies.
 */
function deliveryCost(
  connectionCount: number,
  topicCount: number,
  watchers: number,
): Promise<{ delivering: number; storing: number }> {
  return using({}, async (service) => {
    const rate = 10;
    const seconds = 3;
    const turns = Math.max(2, Math.round(15 * SCALE));
    const topics = Array.from({ length: topicCount }, (_, i) => `bench.topics.${i}`);
    const connections = Array.from(
      { length: connectionCount },
      () => new Connection(service.address),
    );
    const over = new AbortController();
    const uploading = pace(new Connection(service.address), topics, Infinity, rate, over.signal);
    const used = async (): Promise<number> => {
      const before = service.cpu()!;
      await sleep(1_000 * seconds);
      return service.cpu()! - before;
    };
    const watched = async (): Promise<number> => {
      const calls = await Promise.all(
        topics.flatMap((topic, i) =>
          Array.from({ length: watchers }, async (_, j) =>
            (await connections[(i + j) % connectionCount].watch(topic)).read(),
          ),
        ),
      );
      await sleep(1_000);
      const cost = await used();
      for (const call of calls) call.stream.close(CANCEL);
      await sleep(1_000);
      return cost;
    };
    await watched();
    const storing = [await used()];
    const delivering: number[] = [];
    for (let turn = 0; turn < turns; turn++) {
      const both = await watched();
      storing.push(await used());
      delivering.push(both - (storing[turn] + storing[turn + 1]) / 2);
    }
    over.abort();
    await uploading;
    const events = seconds * rate * topicCount;
    return {
      delivering: median(delivering) / events / watchers,
      storing: median(storing) / events,
    };
  });
}

/** Opens 30,000 watches, measures what they cost while nothing happens, and then sends each of them an event. */
async function* idleWatches(): AsyncIterable<string> {
  const service = await Service.start({});
  try {
    await warmUp(service);
    const count = 30_000 * SCALE;
    const before = service.memory()!;
    const connections = Array.from({ length: 100 }, () => new Connection(service.address));
    const start = performance.now();
    const calls = await Promise.all(
      Array.from({ length: count }, async (_, i) => {
        const call = await connections[i % 100].watch(`bench.idle.${i % 100}`);
        return call.read();
      }),
    );
    const seconds = (performance.now() - start) / 1000;
    await sleep(3_000);
    const each = (service.memory()! - before) / count;
    yield `${thousands(count)} watches on 100 connections in ${seconds.toFixed(1)} s, ${each.toFixed(1)} KiB each`;
    const cpu = service.cpu()!;
    await sleep(10_000);
    yield `processor while nothing happens: ${((service.cpu()! - cpu) / 100_000).toFixed(1)}%`;
    const sent = performance.now();
    const sender = new Connection(service.address);
    for (let i = 0; i < 100; i++) await send(sender, new EventMaker(`bench.idle.${i}`, 0), 1);
    await Promise.all(calls.map((call) => call.has(1)));
    yield `an event in each of 100 topics has reached all watches after ${(performance.now() - sent).toFixed(0)} ms`;
    for (const connection of connections) connection.close();
    await sleep(5_000);
    yield `once all watches are closed, memory is ${((service.memory()! - before) / 1024).toFixed(0)} MiB over what it was`;
  } finally {
    await service.stop();
  }
}

/**
 * Returns the most memory that a process takes, in MiB, by the sum in docs/operations.md and with the default
 * settings.
 */
function mostMiB(clients: {
  watches: number;
  chats: number;
  uploads: number;
  connections: number;
}): number {
  const { watches, chats, uploads, connections } = clients;
  const ids = (28 * 1_000_000) / MIB;
  const receive = 192;
  const used = 240 + ids + receive + (watches + chats + uploads + connections) / 16;
  return 1.5 * used;
}

/**
 * Makes the service take as much memory as it can: the table of ids is full, nobody reads watches that are far behind
 * the head, chats read nothing on more connections than the service lets fill up, and uploads and readers run at full
 * speed.
 */
async function* mostMemory(): AsyncIterable<string> {
  const service = await Service.start({});
  const over = new AbortController();
  let most = 0;
  const looking = setInterval(() => (most = Math.max(most, service.memory()!)), 50);
  try {
    await warmUp(service);
    yield `after the start: ${(service.memory()! / 1024).toFixed(0)} MiB`;
    const events = 1_200_000 * SCALE;
    await uploadAll(service, 8, 'bench.most', events);
    yield `with ${thousands(events)} ids and events stored: ${(service.memory()! / 1024).toFixed(0)} MiB, at most ${(most / 1024).toFixed(0)}`;
    const clients = { watches: 1_000 * SCALE, chats: 2_000 * SCALE, uploads: 8, connections: 64 };
    for (let i = 0; i < 20; i++) {
      const connection = new Connection(service.address, 65_535);
      // Nobody reads these watches, because read() is not called.
      for (let j = 0; j < clients.watches / 20; j++)
        await connection.watch('bench.most', 'earliest');
    }
    yield `with ${thousands(clients.watches)} watches that nobody reads: ${(service.memory()! / 1024).toFixed(0)} MiB, at most ${(most / 1024).toFixed(0)}`;
    let ended = 0;
    const unread = Array.from({ length: 32 }, async () => {
      while (!over.signal.aborted) {
        await unreadChats(service, clients.chats / 32, over.signal);
        ended++;
      }
    });
    const flowing = [
      uploadUntil(service, clients.uploads, over.signal),
      ...Array.from({ length: 10 }, () => readUntil(service, 'bench.most', events, over.signal)),
    ];
    for (let part = 1; part <= 4; part++) {
      await sleep(45_000 * SCALE);
      yield `and ${thousands(clients.chats)} chats that nobody reads on 32 connections, 8 uploads and 10 readers, after ${(45 * part * SCALE).toFixed(0)} s: ${(service.memory()! / 1024).toFixed(0)} MiB, at most ${(most / 1024).toFixed(0)}; ${ended} connections were ended`;
    }
    over.abort();
    await Promise.all([...unread, ...flowing]);
    yield `the stated sum: ${mostMiB(clients).toFixed(0)} MiB; measured at most: ${(most / 1024).toFixed(0)} MiB`;
  } finally {
    clearInterval(looking);
    over.abort();
    await service.stop();
  }
}

/**
 * Opens chats on one connection, each of which sends 1 MiB and reads nothing. Resolves after the service has ended the
 * connection, or after `over` is aborted.
 */
async function unreadChats(service: Service, count: number, over: AbortSignal): Promise<void> {
  const connection = new Connection(service.address, 0);
  const messages = Buffer.alloc(MIB, message([2, 'hello']));
  const closed = connection.closed();
  for (let i = 0; i < count; i++) connection.call('Chat').stream.write(messages);
  const stop = (): void => connection.close();
  over.addEventListener('abort', stop);
  await closed;
  over.removeEventListener('abort', stop);
  await sleep(1_000);
}

async function uploadAll(
  service: Service,
  streams: number,
  topic: string,
  events: number,
): Promise<void> {
  const connection = new Connection(service.address);
  await Promise.all(
    Array.from({ length: streams }, (_, i) =>
      send(connection, new EventMaker(topic, i * 1e10), events / streams),
    ),
  );
}

async function uploadUntil(service: Service, streams: number, over: AbortSignal): Promise<void> {
  const connection = new Connection(service.address);
  await Promise.all(
    Array.from({ length: streams }, async (_, i) => {
      const maker = new EventMaker('bench.flow', i * 1e10, 1_000);
      while (!over.aborted) await send(connection, maker, 10_000);
    }),
  );
  connection.close();
}

async function readUntil(
  service: Service,
  topic: string,
  events: number,
  over: AbortSignal,
): Promise<void> {
  const connection = new Connection(service.address);
  while (!over.aborted) {
    const call = (await connection.watch(topic, 'earliest')).read();
    await call.has(events);
    call.stream.close(CANCEL);
  }
  connection.close();
}

/** Shows if memory and latency are the same after an hour as after a few minutes. */
async function* soak(): AsyncIterable<string> {
  const service = await Service.start({ FEED_RETENTION_MAX_BYTES: '64MiB' });
  try {
    await warmUp(service);
    const topic = 'bench.soak';
    const minutes = Number(options.minutes);
    const window = Math.max(1, Math.round(minutes / 6));
    const at = timeOffset(topic);
    let latencies: number[] = [];
    const connections = Array.from({ length: 10 }, () => new Connection(service.address));
    let delivered = 0;
    const watchers = await Promise.all(
      Array.from({ length: 50 }, async (_, i) => {
        const call = await connections[i % 10].watch(topic);
        return call.read((bytes, start) => {
          // Only every hundredth delivery is timed: an hour's latencies would not fit in memory.
          if (delivered++ % 100 === 0)
            latencies.push(performance.now() - readTime(bytes, start + at) / 1000);
        });
      }),
    );
    const over = new AbortController();
    let opened = 0;
    const comingAndGoing = (async () => {
      while (!over.signal.aborted) {
        const call = await connections[opened % 10].watch(
          topic,
          // Every second watch starts 5,000 events behind the head.
          opened % 2 ? [5, 5_000] : undefined,
        );
        opened++;
        call.read();
        setTimeout(() => call.stream.close(CANCEL), 500 + 100 * (opened % 50));
        await sleep(100);
      }
    })();
    const uploading = pace(new Connection(service.address), [topic], 5_000 * 60 * minutes, 5_000);
    const p99s: number[] = [];
    for (let minute = window; minute <= minutes; minute += window) {
      await sleep(window * 60_000);
      const sorted = Float64Array.from(latencies).toSorted();
      latencies = [];
      p99s.push(sorted[Math.floor(0.99 * sorted.length)]);
      yield `after ${minute} min: ${(service.memory()! / 1024).toFixed(0)} MiB, p99 ${p99s.at(-1)!.toFixed(1)} ms, p50 ${sorted[sorted.length >> 1].toFixed(1)} ms, ${opened} watches came, log ${(service.logBytes() / MIB).toFixed(0)} MiB`;
    }
    await uploading;
    over.abort();
    await comingAndGoing;
    await Promise.all(watchers.map((call) => call.has(5_000 * 60 * minutes)));
    yield `every watcher has all ${thousands(5_000 * 60 * minutes)}; p99 at the end / at the start: ${(p99s.at(-1)! / p99s[0]).toFixed(2)}`;
  } finally {
    await service.stop();
  }
}

/** Runs `work` with a service of its own that is warmed up. */
async function using<T>(
  settings: Readonly<Record<string, string>>,
  work: (service: Service) => Promise<T>,
): Promise<T> {
  const service = await Service.start(settings);
  try {
    await warmUp(service);
    return await work(service);
  } finally {
    await service.stop();
  }
}

/** Uploads events and returns how many were stored a second. */
async function uploaded(service: Service, streams: number, events: number): Promise<number> {
  const connections = [new Connection(service.address), new Connection(service.address)];
  const start = performance.now();
  await Promise.all(
    Array.from({ length: streams }, (_, i) =>
      send(connections[i % 2], new EventMaker('bench.events', i * 1e10), events / streams),
    ),
  );
  return (1000 * events) / (performance.now() - start);
}

async function send(
  connection: Connection,
  maker: EventMaker,
  count: number,
  batch = BATCH,
): Promise<void> {
  const call = connection.call('UploadEvents');
  for (let left = count; left > 0; left -= batch)
    await call.write(maker.make(Math.min(batch, left)));
  await call.end();
}

/** Uploads `count` events to each topic at a rate (a second and topic), or until `over` is aborted. */
async function pace(
  connection: Connection,
  topics: readonly string[],
  count: number,
  rate: number,
  over?: AbortSignal,
): Promise<void> {
  const makers = topics.map((topic) => new EventMaker(topic, 0));
  const call = connection.call('UploadEvents');
  const start = performance.now();
  const sent = topics.map(() => 0);
  while (sent.at(-1)! < count) {
    if (over?.aborted) break;
    const elapsed = (performance.now() - start) / 1000;
    const batches: Buffer[] = [];
    for (const [i, maker] of makers.entries()) {
      // The events of the topics are spread over time, so that they do not all come at once.
      const due = Math.min(count, Math.floor(elapsed * rate - i / topics.length));
      if (due <= sent[i]) continue;
      batches.push(maker.make(due - sent[i]));
      sent[i] = due;
    }
    if (batches.length > 0) await call.write(Buffer.concat(batches));
    await sleep(1);
  }
  await call.end();
}

/** Measures how long a new watch waits for its first event: the first time, and the median of 21 times. */
async function firstEvents(
  service: Service,
  topic: string,
  start: readonly [number, string | number],
): Promise<string> {
  const connection = new Connection(service.address);
  await connection.watch('bench.nothing');
  const times: number[] = [];
  for (let i = 0; i < 21; i++) {
    const before = performance.now();
    const call: Call = await connection.watch(topic, start);
    await new Promise((resolve) => call.stream.once('data', resolve));
    times.push(performance.now() - before);
    call.stream.close(CANCEL);
    await sleep(20);
  }
  connection.close();
  return `${times[0].toFixed(1)} ms, then ${median(times).toFixed(1)} ms`;
}

/** Returns the MB a second since a time of performance.now(). */
function perSecond(bytes: number, since: number): string {
  return (bytes / 1000 / (performance.now() - since)).toFixed(1);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

function thousands(count: number): string {
  return Math.round(count).toLocaleString('en-US');
}
