import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, onTestFailed, onTestFinished, test } from 'vitest';
import { connect, take, upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { randomFrom } from '../support/random.js';
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
    console.log('in all runs:', Object.fromEntries(happened));
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
    // Each answer that is lost takes 3 s, and finding out what became of its commit some more.
    const patient = { ...jetstreamSettings(servers), FEED_NATS_PATIENCE: '1m' };
    const replica = await LinkedReplica.start(servers, patient);
    replica.losesAnswer = () => replica.lostAnswers < 2;
    const client = connect(replica.address);
    onTestFinished(() => client.close());
    const events = Array.from({ length: 3 }, (_, i) => ({ topic: 'orders', id: String(i) }));
    expect((await upload(client, events)).result).toMatchObject({ received: 3, duplicates: 0 });
    // One, if all events came in one commit.
    expect(replica.lostAnswers).toBeGreaterThan(0);
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
