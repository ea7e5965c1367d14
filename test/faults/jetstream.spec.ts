import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, onTestFailed, onTestFinished, test } from 'vitest';
import { connect, take, upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { randomFrom } from '../support/random.js';
import { ServiceProcess } from '../support/service.js';
import { until } from '../support/wait.js';
import { LinkedReplica } from './linked-replica.js';
import { begin, type Cluster, planOf, Routes } from './nats-faults.js';
import { NumberedTopics } from './numbered-topics.js';

/** How many random runs there are. */
const RUNS = Number(process.env.FEED_TEST_NATS_RUNS ?? 2);
/** The seed of the first run: what breaks, and for how long. The machine's timing is not repeated by it. */
const SEED = Number(process.env.FEED_TEST_SEED ?? Math.floor(Math.random() * 1e9));
const STEPS = 4;

describe.skipIf(!NATS_SERVER)('replicas on a cluster of three', () => {
  const routes = new Routes();
  const happened = new Map<string, number>();
  let servers: NatsServer[];
  beforeAll(async () => {
    servers = await NatsServer.start(3, { jetstream: '', routeVia: routes.via });
  });
  afterAll(async () => {
    await Promise.all(servers.map((server) => server.remove()));
    routes.close();
    console.log('in all runs:', Object.fromEntries([...happened].toSorted()));
  });

  // The random runs below break only what really goes through the links.
  test('reach each other by links: a server whose links are cut has no routes, and is found again', async () => {
    const { monitorUrl } = servers[1];
    const routesOf = async (): Promise<number> => {
      const answer = await fetch(`${monitorUrl}/routez`);
      return ((await answer.json()) as { num_routes: number }).num_routes;
    };
    await until(async () => (await routesOf()) > 0, 'routes');
    for (const link of routes.of(1)) link.cut();
    await until(async () => (await routesOf()) === 0, 'no routes');
    await sleep(2_000);
    expect(await routesOf()).toBe(0);
    for (const link of routes.of(1)) link.mend();
    await until(async () => (await routesOf()) > 0, 'routes again');
    await Promise.all(servers.map((server) => server.ready()));
  });

  test('store an upload once whose answers from NATS get lost', async () => {
    const replica = await LinkedReplica.start(servers, jetstreamSettings(servers));
    replica.losesAnswer = () => replica.lostAnswers < 2;
    const client = connect(replica.address);
    onTestFinished(() => client.close());
    const events = Array.from({ length: 3 }, (_, i) => ({ topic: 'orders', id: String(i) }));
    expect((await upload(client, events)).result).toMatchObject({ received: 3, duplicates: 0 });
    expect(replica.lostAnswers).toBe(2);
    const held = await take(client, { topic: 'orders', position: 1 }, 3);
    expect(held.map(({ id }) => id)).toEqual(['0', '1', '2']);
    expect((await upload(client, events)).result).toMatchObject({ received: 3, duplicates: 3 });
  });

  for (let seed = SEED; seed < SEED + RUNS; seed++)
    test(
      'lose nothing, store nothing twice and keep the order while servers, replicas and the links between them break ' +
        `(FEED_TEST_SEED=${seed})`,
      { timeout: 300_000 },
      async () => {
        const random = randomFrom(seed);
        const plan = planOf(STEPS, random);
        const losses = randomFrom(random(2 ** 31));
        const isLossy = random(2) === 0;
        const settings: Record<string, string> = {
          ...jetstreamSettings(servers),
          FEED_NATS_PATIENCE: '5s',
          // An event may be sent again as long as the run takes.
          FEED_DEDUP_WINDOW: '1h',
        };
        const start = () => LinkedReplica.start(servers, settings);
        const replicas = await Promise.all([start(), start()]);
        onTestFailed(() => console.log(replicas.map(({ output }) => output).join('\n\n')));
        const cluster: Cluster = { servers, routes, replicas, stream: settings.FEED_NATS_STREAM };

        const topics = new NumberedTopics(['a', 'b', 'c'], replicas);
        topics.begin();
        // A replica waits for seconds for each answer that is lost.
        if (isLossy) replicas[0].losesAnswer = () => losses(20) === 0;
        for (const step of plan) {
          await sleep(300);
          const mend = await begin(step, cluster);
          await sleep(step.duration);
          await mend();
        }
        replicas[0].losesAnswer = () => false;
        const events = await topics.end(await start());

        const names = plan.map(({ faults }) => faults.map(({ name }) => name));
        for (const name of names.flat()) happened.set(name, (happened.get(name) ?? 0) + 1);
        const lost = replicas.reduce((sum, { lostAnswers }) => sum + lostAnswers, 0);
        console.log(
          `seed ${seed}: ${names.map((step) => step.join(' and ')).join(', ')}; ${events} events, ${lost} answers were lost`,
        );
      },
    );
});

/** How long (milliseconds) the cut takes. */
const CUT = Number(process.env.FEED_TEST_NATS_CUT_SECONDS ?? 8) * 1_000;
/** What waits for NATS (append-queue.ts), what is in flight, and what the collector has not freed yet. */
const MOST_GROWTH = 200 * 2 ** 20;

test.skipIf(!NATS_SERVER)(
  'memory stays bounded while uploads at full speed are cut off from NATS, and they go on after it',
  { timeout: 2 * CUT + 120_000 },
  async () => {
    const servers = await NatsServer.start(1, { jetstream: '' });
    onTestFinished(() => servers[0].remove());
    const service = await ServiceProcess.start({
      ...jetstreamSettings(servers),
      FEED_NATS_PATIENCE: '5m',
      FEED_RETENTION_MAX_BYTES: '512MiB',
    });
    const memory = (): number => {
      const status = readFileSync(`/proc/${service.process.pid}/status`, 'utf8');
      return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) * 1024;
    };
    const over = new AbortController();
    const body = 'x'.repeat(1_000);
    const upload = async (n: number): Promise<{ sent: number; received: number }> => {
      const ended = Promise.withResolvers<number>();
      const call = service.connect().UploadEvents((error, result) => {
        if (error) ended.reject(error);
        else ended.resolve(result.received);
      });
      let sent = 0;
      while (!over.signal.aborted) {
        if (!call.write({ topic: `t${n}`, id: `${n}-${sent++}`, body })) await once(call, 'drain');
      }
      call.end();
      return { sent, received: await ended.promise };
    };
    const uploads = Array.from({ length: 8 }, (_, n) => upload(n));
    await sleep(3_000);
    const before = memory();
    servers[0].signal('SIGSTOP');
    let most = 0;
    const end = performance.now() + CUT;
    while (performance.now() < end) {
      most = Math.max(most, memory());
      await sleep(100);
    }
    servers[0].signal('SIGCONT');
    setTimeout(() => over.abort(), 1_000);
    // A writer that waits for room wakes only when there is some again.
    for (const { sent, received } of await Promise.all(uploads)) expect(received).toBe(sent);
    console.log(`${Math.round((most - before) / 2 ** 20)} MiB more during the cut`);
    expect(most - before).toBeLessThan(MOST_GROWTH);
  },
);
