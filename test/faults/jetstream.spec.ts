import { connect } from '@nats-io/transport-node';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { AppendError, type EventRepository } from '../../src/repository/event-repository.js';
import { JetStreamLog } from '../../src/repository/jetstream/jetstream-log.js';
import { type StreamApi, UnansweredError } from '../../src/nats/stream-api.js';
import { KEEP_ALL } from '../../src/repository/retention.js';
import { formatCursor } from '../../src/wire/cursor.js';
import { checked } from '../wire/events.js';
import { ids, readAll, type Seen } from '../contract/reading.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { randomFrom } from '../support/random.js';
import { ServiceProcess } from '../support/service.js';
import { until } from '../support/wait.js';

/** How many random runs there are. */
const RUNS = Number(process.env.FEED_TEST_NATS_RUNS ?? 2);
const SEED = Number(process.env.FEED_TEST_SEED ?? Math.floor(Math.random() * 1e9));
const FAULTS = 4;
const TOPICS = ['a', 'b', 'c'];
/** Each topic has two producers, on two replicas, which send the same events until the faults are over. */
const REPLICAS = 2;

describe.skipIf(!NATS_SERVER)('replicas on a cluster of three', () => {
  let servers: NatsServer[];
  let streams = 0;
  beforeAll(async () => void (servers = await NatsServer.start(3, { jetstream: '' })));
  afterAll(() => Promise.all(servers.map((server) => server.remove())));

  async function openReplica(stream: string): Promise<JetStreamLog> {
    const connection = await connect({
      servers: servers.map(({ url }) => url),
      maxReconnectAttempts: -1,
      reconnectTimeWait: 100,
      pingInterval: 1_000,
      maxPingOut: 2,
      noAsyncTraces: true,
      waitOnFirstConnect: true,
    });
    const log = await JetStreamLog.open({
      connection,
      stream,
      replicas: 3,
      durability: 'memory',
      dedup: { ids: 100_000, milliseconds: 600_000 },
      retention: KEEP_ALL,
      patience: 5_000,
      notices: { info: () => {}, warn: () => {}, error: () => {} },
    });
    onTestFinished(() => log.close());
    return log;
  }

  /** Lets answers to commits get lost, after the commits were stored. */
  function dropAnswers(log: JetStreamLog, share: number, random: () => number): void {
    const { api } = log as unknown as { api: StreamApi };
    const publish = api.publish.bind(api);
    api.publish = async (...args) => {
      const sequence = await publish(...args);
      if (random() < share) throw new UnansweredError('dropped by the test');
      return sequence;
    };
  }

  const request = async (subject: string): Promise<void> => {
    const up = await connect({
      servers: servers.map(({ url }) => url),
      timeout: 2_000,
    });
    await up.request(subject, '', { timeout: 1_000 }).catch(() => {});
    await up.close();
  };

  /** Breaks something and mends it. Returns what it did. */
  async function fault(stream: string, random: () => number): Promise<string> {
    const pick = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)];
    const some = (count: number): NatsServer[] => {
      const from = Math.floor(random() * servers.length);
      return Array.from({ length: count }, (_, i) => servers[(from + i) % servers.length]);
    };
    const duration = 500 + random() * 2_500;
    const [what, hit] = pick([
      ['SIGKILL', some(1)],
      ['SIGKILL', some(2)],
      ['SIGKILL', servers],
      ['SIGSTOP', some(1)],
      ['SIGSTOP', some(2)],
      ['step-down', []],
    ] as const);
    if (what === 'step-down') {
      await request(`$JS.API.STREAM.LEADER.STEPDOWN.${stream}`);
    } else if (what === 'SIGSTOP') {
      for (const server of hit) server.signal('SIGSTOP');
      await sleep(duration);
      for (const server of hit) server.signal('SIGCONT');
    } else {
      await Promise.all(hit.map((server) => server.kill()));
      await sleep(duration / 2);
      for (const server of hit) server.run();
    }
    await Promise.all(servers.map((server) => server.ready()));
    return `${what} of ${hit.map(({ name }) => name).join(' ') || 'the leader'}`;
  }

  /** Sends events 0, 1, 2 ... of a topic until `isOver`, as a producer does: after a failure from the first unknown one on. */
  async function produce(
    log: EventRepository,
    topic: string,
    isOver: () => boolean,
    acknowledged: Map<string, string>,
  ): Promise<number> {
    let next = 0;
    let writer = log.openWriter();
    for (;;) {
      const batch = 1 + (next % 7);
      const events = Array.from({ length: batch }, (_, i) => ({ topic, id: String(next + i) }));
      try {
        const { last } = await writer.append(checked(...events));
        next += batch;
        acknowledged.set(`${topic} ${next - 1}`, formatCursor(last));
        if (isOver()) return next;
        await sleep(1);
      } catch (error) {
        expect(error).toBeInstanceOf(AppendError);
        writer = log.openWriter();
      }
    }
  }

  /** Reads a topic as a watch does, until `isOver` and there is no more. Throws unless it is complete and in order. */
  async function follow(
    log: EventRepository,
    topic: string,
    isOver: () => boolean,
  ): Promise<number> {
    let position = 0;
    let count = 0;
    for (;;) {
      const wasOver = isOver();
      const found: Seen[] = await readAll(log, topic, position);
      for (const { id } of found) expect(id).toBe(String(count++));
      position = found.at(-1)?.position ?? position;
      if (wasOver) return count;
      await sleep(20);
    }
  }

  for (let seed = SEED; seed < SEED + RUNS; seed++)
    test(
      `lose nothing, store nothing twice and keep the order through kills, pauses and elections (FEED_TEST_SEED=${seed})`,
      { timeout: 180_000 },
      async () => {
        const below = randomFrom(seed);
        const random = (): number => below(1_000) / 1_000;
        const stream = `F${streams++}`;
        const logs = await Promise.all(Array.from({ length: REPLICAS }, () => openReplica(stream)));
        for (const log of logs) dropAnswers(log, random() < 0.5 ? 0.3 : 0, random);
        let isOver = false;
        const acknowledged = new Map<string, string>();
        const producing = logs.flatMap((log) =>
          TOPICS.map((topic) => produce(log, topic, () => isOver, acknowledged)),
        );
        let isDone = false;
        const following = logs.flatMap((log) =>
          TOPICS.map((topic) => follow(log, topic, () => isDone)),
        );
        const done: string[] = [];
        for (let i = 0; i < FAULTS; i++) {
          await sleep(300);
          done.push(await fault(stream, random));
        }
        isOver = true;
        const sent = await Promise.all(producing);
        const fresh = await openReplica(stream);
        const { head } = fresh;
        await until(() => logs.every((log) => log.head === head), 'the same head on all replicas');
        isDone = true;
        const followed = await Promise.all(following);

        for (const [i, topic] of TOPICS.entries()) {
          const seen = await readAll(fresh, topic);
          for (const log of logs) expect(await readAll(log, topic)).toEqual(seen);
          const most = Math.max(...logs.map((_, k) => sent[k * TOPICS.length + i]));
          expect(ids(seen)).toEqual(Array.from({ length: most }, (_, k) => String(k)));
          for (const { id, cursor } of seen) {
            const answered = acknowledged.get(`${topic} ${id}`);
            if (answered !== undefined) expect(cursor).toBe(answered);
          }
          for (const k of logs.keys()) expect(followed[k * TOPICS.length + i]).toBe(most);
        }
        console.log(
          `seed ${seed}: ${done.join(', ')}; ${sent.reduce((sum, n) => sum + n)} events sent`,
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
