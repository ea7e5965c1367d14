import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { connect, type Feed, type Watch } from '@feed-events/client';
import { randomFrom } from '../../test/support/random.js';
import { freeAddresses } from '../../test/support/ports.js';
import { ServiceProcess, temporaryDirectory } from '../../test/support/service.js';
import { eventually, within } from '../../test/support/wait.js';
import { FaultProxy } from './fault-proxy.js';
import { Numbers } from './numbers.js';

/** How often the service is killed. */
const KILLS = Number(process.env.FEED_TEST_KILLS ?? 4);
const SEED = Number(process.env.FEED_TEST_SEED ?? Math.floor(Math.random() * 1e9));

const UPLOADS = 5;
const WATCHES = 20;

/** Reads a watch into `bodies`, and stops where `wanted` says; until then it waits for more. */
async function follow(watch: Watch, bodies: string[], wanted: () => number): Promise<void> {
  for await (const event of watch) {
    bodies.push(event.body);
    if (bodies.length >= wanted()) return;
  }
}

test(
  `${WATCHES} watches get every event once and in order, and ${UPLOADS} uploads are stored once, while the service is killed ` +
    `${KILLS} times and a proxy cuts, stalls and half-closes connections (FEED_TEST_SEED=${SEED})`,
  { timeout: 90_000 + KILLS * 30_000 },
  async () => {
    const random = randomFrom(SEED);
    const settings = {
      ...(await freeAddresses()),
      FEED_DATA_DIR: temporaryDirectory(),
      // An upload that completes no call over many kills would rightly end with DEDUP_WINDOW_PASSED.
      FEED_DEDUP_WINDOW: '10m',
    };
    let service = await ServiceProcess.start(settings);
    const proxy = await FaultProxy.start(() => settings.FEED_GRPC_ADDRESS);
    const client = (): Feed => {
      const feed = connect(proxy.address, {
        keepalive: { time: 1_000, timeout: 1_000 },
        connectTimeout: 2_000,
        retry: { initial: 20, max: 500 },
      });
      onTestFinished(() => feed.close());
      return feed;
    };
    const producer = client();
    const consumers = [client(), client(), client()];

    const topics = Array.from({ length: UPLOADS }, (_, i) => `chaos.${i}`);
    const sources = topics.map(() => new Numbers());
    const received = Array.from({ length: WATCHES }, (): string[] => []);
    let isOver = false;
    const watches = received.map((bodies, i) => {
      const topic = i % UPLOADS;
      const from = i % 2 === 0 ? 'earliest' : { last: 1_000_000 };
      const watch = consumers[i % consumers.length].watch(topics[topic], {
        from,
        heartbeat: 1_000,
      });
      return follow(watch, bodies, () => (isOver ? sources[topic].count : Infinity));
    });
    const uploads = topics.map((topic, i) => producer.upload(topic, sources[i]));
    const outcome = Promise.all([...uploads, ...watches]);
    outcome.catch(() => {}); // looked at below

    for (let kill = 0; kill < KILLS; kill++) {
      for (let fault = 0; fault < 8; fault++) {
        await sleep(random(200));
        proxy.disturb(random);
      }
      await service.kill('SIGKILL');
      await sleep(random(300));
      service = await ServiceProcess.start(settings);
    }
    for (const source of sources) source.isDone = true;
    const summaries = await within(Promise.all(uploads), 'every upload', 60_000);
    isOver = true;
    // A watch that had everything before that waits for one event more.
    await Promise.all(topics.map((topic) => producer.upload(topic, ['last'])));

    await eventually(() => {
      const missing = received.map((bodies, i) => sources[i % UPLOADS].count - bodies.length);
      expect(missing.filter((n) => n > 0)).toEqual([]);
    }, 60_000);
    await within(outcome, 'every watch', 60_000);
    for (const [i, bodies] of received.entries()) {
      const { count } = sources[i % UPLOADS];
      const wanted = Array.from({ length: count }, (_, n) => String(n));
      expect(bodies.slice(0, count)).toEqual(wanted);
      expect(bodies.slice(count).every((body) => body === 'last')).toBe(true);
    }
    for (const [i, { stored }] of summaries.entries()) expect(stored).toBe(sources[i].count);
    const retries = summaries.reduce((sum, summary) => sum + summary.retries, 0);
    console.log(
      `${proxy.faults} faults and ${KILLS} kills; ${retries} calls of ${UPLOADS} uploads were made again; ` +
        `${sources.reduce((sum, { count }) => sum + count, 0)} events`,
    );
    expect(retries).toBeGreaterThanOrEqual(KILLS); // else the faults hit nothing
  },
);
