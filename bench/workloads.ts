import { setTimeout as sleep } from 'node:timers/promises';
import { type Call, Connection } from './client.ts';
import { EventMaker, message, readTime, timeOffset } from './events.ts';
import { HttpWatch } from './http-watch.ts';
import type { Service } from './service.ts';

/** The result of a workload. */
export interface Measured {
  /** The number of events stored or delivered, of messages answered, or of watches opened. */
  readonly count: number;
  readonly seconds: number;
  /** One latency for each delivery or acknowledgement that was timed, in milliseconds. */
  readonly latencies?: readonly number[];
  /** Memory for each open stream, in KiB. */
  readonly memoryEach?: number;
}

export interface Workload {
  readonly name: string;
  /** A name for what `count` counts, such as "events stored". */
  readonly unit: string;
  readonly settings?: Readonly<Record<string, string>>;
  /** The name of another workload. The table shows which share of its rate this one has. */
  readonly comparedWith?: string;
  /** Runs before the measurement. */
  readonly prepare?: (service: Service) => Promise<void>;
  /** @param scale 1, or less for a quick run */
  readonly run: (service: Service, scale: number) => Promise<Measured>;
}

const TOPIC = 'bench.events';
/** Events in one write. */
const BATCH = 256;
/** The number of the next id that no maker has used yet. */
let nextId = 0;

async function timed(count: number, work: () => Promise<unknown>): Promise<Measured> {
  const start = performance.now();
  await work();
  return { count, seconds: (performance.now() - start) / 1000 };
}

async function upload(connection: Connection, topic: string, events: number): Promise<void> {
  const maker = new EventMaker(topic, nextId);
  nextId += events;
  const call = connection.call('UploadEvents');
  for (let left = events; left > 0; left -= BATCH)
    await call.write(maker.make(Math.min(BATCH, left)));
  await call.end();
}

function uploading(streams: number): Workload {
  return {
    name: `upload, ${streams} stream${streams > 1 ? 's' : ''}`,
    unit: 'events stored',
    async run({ address }, scale) {
      const events = Math.round((1_000_000 * scale) / streams);
      const connections = Array.from(
        { length: Math.min(2, streams) },
        () => new Connection(address),
      );
      return timed(events * streams, () =>
        Promise.all(
          Array.from({ length: streams }, (_, i) =>
            upload(connections[i % connections.length], TOPIC, events),
          ),
        ),
      );
    },
  };
}

/** Opens watches, spread over connections. */
async function watches(
  address: string,
  count: number,
  connections: number,
  topicOf: (i: number) => string | readonly string[] = () => TOPIC,
  windowBytes?: number,
): Promise<Call[]> {
  const all = Array.from({ length: connections }, () => new Connection(address, windowBytes));
  return Promise.all(
    Array.from({ length: count }, (_, i) => all[i % connections].watch(topicOf(i))),
  );
}

function fanOut(watchers: number, events: number, stalled = 0): Workload {
  return {
    name: `fan-out to ${watchers}, ${stalled > 0 ? `beside ${stalled} stalled` : 'flat out'}`,
    unit: 'events delivered',
    ...(stalled > 0 && {
      comparedWith: fanOut(watchers, events).name,
      prepare: ({ address }) => stall(address, stalled),
    }),
    async run({ address }, scale) {
      const count = Math.round(events * scale);
      const calls = (await watches(address, watchers, Math.min(10, watchers))).map((call) =>
        call.read(),
      );
      return timed(count * watchers, () =>
        Promise.all([
          upload(new Connection(address), TOPIC, count),
          ...calls.map((call) => call.has(count)),
        ]),
      );
    },
  };
}

const MANY_TOPICS = 1_000;
const manyTopic = (i: number): string => `bench.many.${i % MANY_TOPICS}`;

/** Uploads events of many topics, one of each in turn, or as many of one topic. */
async function uploadMany(connection: Connection, topics: number, events: number): Promise<void> {
  const makers = Array.from({ length: topics }, (_, i) => new EventMaker(manyTopic(i), nextId));
  nextId += events;
  const call = connection.call('UploadEvents');
  for (let sent = 0; sent < events;) {
    const count = Math.min(BATCH, events - sent);
    const turns = Array.from({ length: count }, (_, i) => makers[(sent + i) % topics]);
    await call.write(
      topics === 1 ? makers[0].make(count) : Buffer.concat(turns.map((one) => one.make(1))),
    );
    sent += count;
  }
  await call.end();
}

/**
 * @param topics how many topics the events are of
 * @param watched the topics of each watch, of which each event comes to `copies`
 */
function manyTopics(
  name: string,
  events: number,
  watchers: number,
  topics: number,
  copies: number,
  watched: (i: number) => string | readonly string[],
  comparedWith?: string,
): Workload {
  return {
    name,
    unit: 'events delivered',
    ...(comparedWith !== undefined && { comparedWith }),
    async run({ address }, scale) {
      const count = Math.round((events * scale) / MANY_TOPICS) * MANY_TOPICS;
      const calls = (await watches(address, watchers, Math.min(10, watchers), watched)).map(
        (call) => call.read(),
      );
      return timed(count * copies, () =>
        Promise.all([
          uploadMany(new Connection(address), topics, count),
          ...calls.map((call) => call.has((count * copies) / watchers)),
        ]),
      );
    },
  };
}

const tenTopics = (i: number): string[] =>
  Array.from({ length: 10 }, (_, n) => manyTopic(10 * i + n));

const manyTopicsRows: readonly Workload[] = [
  manyTopics('1 watch of one topic', 300_000, 1, 1, 1, () => manyTopic(0)),
  manyTopics(
    '1 watch of > over 1000 topics',
    300_000,
    1,
    MANY_TOPICS,
    1,
    () => ['>'],
    '1 watch of one topic',
  ),
  manyTopics('10 watches of one topic', 100_000, 10, 1, 10, () => manyTopic(0)),
  manyTopics(
    '1000 watches of 10 topics, over 1000 topics',
    100_000,
    1_000,
    MANY_TOPICS,
    10,
    tenTopics,
    '10 watches of one topic',
  ),
];

/** The same as fanOut(), over HTTP, as Server-Sent Events. */
function httpFanOut(watchers: number, events: number): Workload {
  return {
    name: `fan-out over HTTP to ${watchers}, flat out`,
    unit: 'events delivered',
    comparedWith: fanOut(watchers, events).name,
    async run({ address, httpAddress }, scale) {
      const count = Math.round(events * scale);
      const all = Array.from({ length: watchers }, () =>
        HttpWatch.open(httpAddress, `topic=${TOPIC}`),
      );
      const open = await Promise.all(all);
      return timed(count * watchers, () =>
        Promise.all([
          upload(new Connection(address), TOPIC, count),
          ...open.map((watch) => watch.has(count)),
        ]),
      );
    },
  };
}

/** The receive window of a stalled stream: HTTP/2's default. What goes beyond it waits in the service. */
const STALLED_WINDOW_BYTES = 64 * 1024;

/** Opens watches that nobody reads, and uploads so much that their windows are full. */
async function stall(address: string, count: number): Promise<void> {
  await watches(address, count, 10, undefined, STALLED_WINDOW_BYTES);
  await upload(new Connection(address), TOPIC, 10 * BATCH);
  await sleep(2_000);
}

/** Uploads events at a rate, and times each delivery. */
function paced(watchers: number, rate: number): Workload {
  return {
    name: `fan-out to ${watchers}, ${rate}/s`,
    unit: 'events delivered',
    async run({ address }, scale) {
      const count = Math.round(10 * rate * scale);
      const latencies: number[] = [];
      const at = timeOffset(TOPIC);
      const note = (bytes: Buffer, start: number): void => {
        latencies.push(performance.now() - readTime(bytes, start + at) / 1000);
      };
      const calls = (await watches(address, watchers, Math.min(10, watchers))).map((call) =>
        call.read(note),
      );
      return {
        ...(await timed(count * watchers, async () => {
          await pacedUpload(address, TOPIC, count, rate);
          await Promise.all(calls.map((call) => call.has(count)));
        })),
        latencies,
      };
    },
  };
}

async function pacedUpload(
  address: string,
  topic: string,
  count: number,
  rate: number,
): Promise<void> {
  const maker = new EventMaker(topic, nextId);
  nextId += count;
  const call = new Connection(address).call('UploadEvents');
  const start = performance.now();
  for (let sent = 0; sent < count;) {
    const due = Math.min(count, Math.floor(((performance.now() - start) * rate) / 1000));
    if (due > sent) await call.write(maker.make(due - sent));
    sent = Math.max(sent, due);
    await sleep(1);
  }
  await call.end();
}

const RATE = 150_000;
const UPLOADERS = 8;

/** Times uploads of one event each, while other streams upload at a rate. */
function acknowledging(what: string, settings: Readonly<Record<string, string>>): Workload {
  return {
    name: `acknowledgement at ${RATE / 1000}k/s${what}`,
    unit: 'events stored',
    settings,
    async run({ address }, scale) {
      const latencies: number[] = [];
      const count = Math.round((25 * RATE * scale) / UPLOADERS);
      const connection = new Connection(address);
      const over = new AbortController();
      const probe = async (): Promise<void> => {
        // By then, more is stored than retention keeps, so it is at work.
        await sleep(14_000 * scale);
        while (!over.signal.aborted) {
          const start = performance.now();
          await upload(connection, 'bench.probe', 1);
          latencies.push(performance.now() - start);
          await sleep(5);
        }
      };
      const measured = await timed(count * UPLOADERS, async () => {
        const probing = probe();
        await Promise.all(
          Array.from({ length: UPLOADERS }, (_, i) =>
            pacedUpload(address, `${TOPIC}.${i}`, count, RATE / UPLOADERS),
          ),
        );
        over.abort();
        await probing;
      });
      return { ...measured, latencies };
    },
  };
}

function replaying(watchers: number, events: number): Workload {
  return {
    name: `replay to ${watchers}`,
    unit: 'events delivered',
    async run({ address }, scale) {
      const count = Math.round(events * scale);
      await upload(new Connection(address), TOPIC, count);
      return timed(count * watchers, () =>
        Promise.all(
          Array.from({ length: watchers }, async () => {
            const call = await new Connection(address).watch(TOPIC, 'earliest');
            await call.read().has(count);
          }),
        ),
      );
    },
  };
}

function chatting(streams: number): Workload {
  return {
    name: `chat echo, ${streams} streams`,
    unit: 'messages answered',
    async run({ address }, scale) {
      const count = Math.round((1_000_000 * scale) / streams / BATCH) * BATCH;
      const batch = Buffer.concat(
        Array.from({ length: BATCH }, () => message([1, 'bench'], [2, 'x'.repeat(100)])),
      );
      const connection = new Connection(address);
      return timed(count * streams, () =>
        Promise.all(
          Array.from({ length: streams }, async () => {
            const call = connection.call('Chat').read();
            for (let sent = 0; sent < count; sent += BATCH) await call.write(batch);
            await call.has(count);
            await call.end();
          }),
        ),
      );
    },
  };
}

function idle(streams: number, connections: number): Workload {
  return {
    name: `${streams} idle watches, ${connections} connection${connections > 1 ? 's' : ''}`,
    unit: 'watches opened',
    async run(service, scale) {
      const count = Math.round(streams * scale);
      const before = service.memory();
      const measured = await timed(count, () =>
        watches(service.address, count, connections, (i) => `bench.idle.${i % 100}`),
      );
      await sleep(2_000);
      const after = service.memory();
      return {
        ...measured,
        ...(before !== undefined &&
          after !== undefined && { memoryEach: (after - before) / count }),
      };
    },
  };
}

export const workloads: readonly Workload[] = [
  uploading(1),
  uploading(8),
  fanOut(10, 300_000),
  fanOut(10, 300_000, 1_000),
  fanOut(1_000, 5_000),
  httpFanOut(10, 300_000),
  ...manyTopicsRows,
  paced(10, 5_000),
  paced(1_000, 100),
  replaying(1, 2_000_000),
  replaying(10, 500_000),
  chatting(4),
  acknowledging('', {}),
  acknowledging(', retention at work', { FEED_RETENTION_MAX_BYTES: '256MiB' }),
  idle(10_000, 10),
  idle(5_000, 1),
];
