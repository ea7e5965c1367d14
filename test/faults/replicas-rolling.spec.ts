import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { connect, type Feed, type Watch, type WatchState } from '@feed-events/client';
import { jetstreamSettings, NATS_SERVER } from '../support/nats.js';
import { freeAddress } from '../support/ports.js';
import { ServiceProcess } from '../support/service.js';
import { eventually, until, within } from '../support/wait.js';
import { clusterForTests } from './replicas.js';

const WATCHES = Number(process.env.FEED_TEST_NATS_WATCHES ?? 30);
/** Each upload has a topic of its own; the watches share the topics. */
const UPLOADS = Number(process.env.FEED_TEST_NATS_UPLOADS ?? 5);
/** Each upload stores an event this often (milliseconds). */
const INTERVAL = 100;
const REPLICAS = 3;
/** So many clients have the watches, and so many the uploads. */
const CONSUMERS = 4;
const PRODUCERS = 2;

/** Yields numbers at an even pace, until it is told to stop. */
class Numbers {
  count = 0;
  isDone = false;

  async *[Symbol.asyncIterator](): AsyncGenerator<string> {
    while (!this.isDone) {
      yield String(this.count++);
      await sleep(INTERVAL);
    }
  }
}

/** A watch as its consumer sees it. */
class Consumer {
  readonly bodies: string[] = [];
  /** How often it connected again, during the restart that is under way. */
  reconnects = 0;
  /** The longest time (milliseconds) between two events, since it was last set to 0. */
  silence = 0;
  readonly breaks: Extract<WatchState, { name: 'reconnecting' }>[] = [];
  private heardAt = performance.now();

  readonly onState = (state: WatchState): void => {
    if (state.name !== 'reconnecting') return;
    this.reconnects++;
    this.breaks.push(state);
  };

  /** Takes events until it has as many as `wanted` says. */
  async follow(watch: Watch, wanted: () => number): Promise<void> {
    for await (const { body } of watch) {
      const now = performance.now();
      this.silence = Math.max(this.silence, now - this.heardAt);
      this.heardAt = now;
      this.bodies.push(body);
      if (this.bodies.length >= wanted()) return;
    }
  }
}

const longest = (consumers: readonly Consumer[]): number =>
  Math.round(Math.max(...consumers.map(({ silence }) => silence)));

/** The built checkout of an earlier version, for a test of both side by side. */
const EARLIER = process.env.FEED_TEST_EARLIER;

/** Starts a replica of this version, or of that of a checkout. */
async function startVersion(
  settings: Record<string, string>,
  checkout: string | undefined,
): Promise<ServiceProcess> {
  if (checkout === undefined) return ServiceProcess.start(settings);
  const replica = ServiceProcess.shell(`exec '${checkout}/bin/feed-server'`, settings);
  await replica.ready();
  return replica;
}

const everyReplica = (checkout: string | undefined): (string | undefined)[] =>
  Array.from({ length: REPLICAS }, () => checkout);

describe.skipIf(!NATS_SERVER)('a rolling restart', () => {
  const servers = clusterForTests();
  if (!EARLIER) console.log('left out: FEED_TEST_EARLIER names no checkout of an earlier version');

  test.each<[string, string | undefined, (string | undefined)[]]>([
    ['', undefined, everyReplica(undefined)],
    ...(EARLIER
      ? [
          [
            ' from an earlier version to this one and back',
            EARLIER,
            [...everyReplica(undefined), ...everyReplica(EARLIER)],
          ] as [string, string, (string | undefined)[]],
        ]
      : []),
  ])(
    `of three replicas%s under ${WATCHES} watches and ${UPLOADS} uploads loses nothing, repeats nothing, and breaks each watch ` +
      'once for each restart of its replica',
    { timeout: 240_000 },
    async (_title, first, restarts) => {
      const settings = jetstreamSettings(servers());
      const replicas: ServiceProcess[] = [];
      const addresses: string[] = [];
      for (const checkout of everyReplica(first)) {
        const FEED_GRPC_ADDRESS = await freeAddress();
        addresses.push(FEED_GRPC_ADDRESS);
        replicas.push(await startVersion({ ...settings, FEED_GRPC_ADDRESS }, checkout));
      }
      const client = (): Feed => {
        const feed = connect(addresses);
        onTestFinished(() => feed.close());
        return feed;
      };
      const consumersOf = Array.from({ length: CONSUMERS }, client);
      const producers = Array.from({ length: PRODUCERS }, client);
      const topics = Array.from({ length: UPLOADS }, (_, i) => `rolling.${i}`);
      const sources = topics.map(() => new Numbers());
      const uploads = topics.map((topic, i) => producers[i % PRODUCERS].upload(topic, sources[i]));
      let isOver = false;
      const consumers = Array.from({ length: WATCHES }, () => new Consumer());
      const watches = consumers.map((consumer, i) => {
        const topic = i % UPLOADS;
        const watch = consumersOf[i % CONSUMERS].watch(topics[topic], {
          from: 'earliest',
          onState: consumer.onState,
        });
        return consumer.follow(watch, () => (isOver ? sources[topic].count : Infinity));
      });
      const outcome = Promise.all([...uploads, ...watches]);
      outcome.catch(() => {}); // looked at below

      await until(
        () => consumers.every(({ bodies }) => bodies.length > 0),
        'events on all watches',
      );
      for (const consumer of consumers) consumer.silence = 0;
      await sleep(3_000);
      const silences = [`${longest(consumers)} ms before`];

      for (const [n, checkout] of restarts.entries()) {
        const i = n % REPLICAS;
        for (const consumer of consumers) consumer.silence = consumer.reconnects = 0;
        expect(await replicas[i].kill('SIGTERM')).toEqual({ code: 0, signal: null });
        const again = { ...settings, FEED_GRPC_ADDRESS: addresses[i] };
        replicas[i] = await startVersion(again, checkout);
        // Whoever was cut off by the restart has found another replica.
        const counts = consumers.map(({ bodies }) => bodies.length);
        await eventually(() =>
          expect(consumers.every(({ bodies }, k) => bodies.length > counts[k])).toBe(true),
        );
        const broken = consumers.filter(({ reconnects }) => reconnects > 0);
        expect(consumers.map(({ reconnects }) => reconnects).filter((times) => times > 1)).toEqual(
          [],
        );
        silences.push(`${longest(consumers)} ms in restart ${n + 1} (${broken.length} watches)`);
      }

      for (const source of sources) source.isDone = true;
      const summaries = await within(Promise.all(uploads), 'every upload', 60_000);
      isOver = true;
      // A watch that had everything before that waits for one event more.
      await Promise.all(topics.map((topic) => producers[0].upload(topic, ['last'])));
      await within(outcome, 'every watch', 60_000);

      for (const [i, { stored }] of summaries.entries()) expect(stored).toBe(sources[i].count);
      for (const [i, { bodies, breaks }] of consumers.entries()) {
        const { count } = sources[i % UPLOADS];
        expect(bodies.slice(0, count)).toEqual(Array.from({ length: count }, (_, n) => String(n)));
        expect(bodies.slice(count).every((body) => body === 'last')).toBe(true);
        // Its replica said why it ended the watch, and the first attempt on another one succeeded.
        expect(breaks.length).toBeGreaterThanOrEqual(1);
        for (const { reason, attempt } of breaks) {
          expect(['DRAINING', 'MOVED']).toContain(reason.reason);
          expect(attempt).toBe(1);
        }
      }
      const events = sources.reduce((sum, { count }) => sum + count, 0);
      console.log(`${events} events; the longest silence of a watch: ${silences.join(', ')}`);
    },
  );
});
