import { connect } from '@nats-io/transport-node';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { StreamApi } from '../../src/nats/stream-api.js';
import { JetStreamLog } from '../../src/repository/jetstream/jetstream-log.js';
import { sequenceOf } from '../../src/repository/jetstream/message.js';
import { KEEP_ALL } from '../../src/repository/retention.js';
import { ids, readAll } from '../contract/reading.js';
import { take, upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER } from '../support/nats.js';
import { eventually } from '../support/wait.js';
import { checked } from '../wire/events.js';
import { clusterForTests, jetstream, startReplicas } from './replicas.js';

/** How many cursors of one replica are used on another one. */
const CURSORS = Number(process.env.FEED_TEST_NATS_CURSORS ?? 300);
/** How many cursors are on their way from one replica to another one at the same time. */
const LANES = 20;
/** How many reads of what was just stored there are while followers are paused. */
const READS = Number(process.env.FEED_TEST_NATS_READS ?? 150);

describe.skipIf(!NATS_SERVER)('replicas on a cluster of three', () => {
  const servers = clusterForTests();

  test(
    `${CURSORS} cursors of one replica are good on another one at once, and nothing is missing after them`,
    { timeout: 180_000 + CURSORS * 60 },
    async () => {
      const replicas = await startReplicas(3, jetstreamSettings(servers()));
      const clients = replicas.map((replica) => replica.connect());
      let used = 0;

      /** Stores an event on one replica and waits for it on another one, with the cursor of the event before. */
      async function lane(number: number): Promise<void> {
        const topic = `lane.${number}`;
        const store = async (i: number): Promise<string> => {
          const { result, error } = await upload(clients[(number + i) % 3], [
            { topic, id: String(i) },
          ]);
          if (!result) throw error;
          return result.lastCursor;
        };
        let afterCursor = await store(0);
        for (let i = 1; used < CURSORS; i++) {
          used++;
          // A cursor that is ahead of the log would end this watch with CURSOR_AHEAD.
          const next = take(clients[(number + i) % 3], { topic, afterCursor }, 1);
          next.catch(() => {}); // awaited below
          const cursor = await store(i);
          expect(await next).toMatchObject([{ id: String(i), cursor }]);
          afterCursor = cursor;
        }
      }

      const began = performance.now();
      await Promise.all(Array.from({ length: LANES }, (_, number) => lane(number)));
      const took = performance.now() - began;
      console.log(`${used} cursors used on another replica in ${Math.round(took)} ms`);
    },
  );

  async function openReplica(stream: string): Promise<JetStreamLog> {
    const connection = await connect({ servers: servers().map(({ url }) => url) });
    const log = await JetStreamLog.open({
      connection,
      stream,
      replicas: 3,
      durability: 'memory',
      dedup: { ids: 0, milliseconds: 0 },
      retention: KEEP_ALL,
      patience: 20_000,
      notices: { info: () => {}, warn: () => {}, error: () => {} },
    });
    onTestFinished(() => log.close());
    return log;
  }

  /** Pauses one server after another that follows the leader of the stream, until `isOver`. Returns how often. */
  async function pauseFollowers(stream: string, isOver: () => boolean): Promise<number> {
    const connection = await connect({ servers: servers().map(({ url }) => url) });
    onTestFinished(() => connection.close());
    let pauses = 0;
    while (!isOver()) {
      // While a leader is elected, as after a pause of this process, nobody answers.
      const { cluster } = await eventually(() =>
        jetstream<{ cluster: { leader: string } }>(connection, `STREAM.INFO.${stream}`),
      );
      const followers = servers().filter(({ name }) => name !== cluster.leader);
      const follower = followers[pauses++ % followers.length];
      follower.signal('SIGSTOP');
      await sleep(200);
      follower.signal('SIGCONT');
      await sleep(20);
    }
    return pauses;
  }

  test(
    'no read of what was just stored is incomplete, while followers of the stream are paused in turn',
    { timeout: 180_000 + READS * 600 },
    async () => {
      const stream = 'PAUSED';
      const [writer, reader] = [await openReplica(stream), await openReplica(stream)];
      const { replica, api } = reader as unknown as {
        replica: { state: { tail: { forget(upTo: number): void } } };
        api: StreamApi;
      };
      // Counts the answers of servers that lag: what was stored last is missing in them.
      let lastPosition = 0;
      let stale = 0;
      const messages = api.messages.bind(api);
      api.messages = async (...query) => {
        const found = await messages(...query);
        if ((found.at(-1)?.sequence ?? 0) < sequenceOf(lastPosition)) stale++;
        return found;
      };

      let isOver = false;
      const pausing = pauseFollowers(stream, () => isOver);
      pausing.catch(() => {}); // awaited below
      const perRead = 5;
      let position = 0;
      try {
        for (let i = 0; i < READS; i++) {
          for (let k = 0; k < perRead; k++) {
            const { last } = await writer
              .openWriter()
              .append(checked({ topic: 't', id: String(perRead * i + k) }));
            lastPosition = last.position;
          }
          await reader.catchUp();
          // From here on, reads of this replica go to the servers, as those of what is older than its tail do.
          replica.state.tail.forget(reader.head);
          const found = await readAll(reader, 't', position);
          expect(ids(found)).toEqual(
            Array.from({ length: perRead }, (_, k) => String(perRead * i + k)),
          );
          position = found.at(-1)!.position;
          expect(position).toBe(lastPosition);
        }
      } finally {
        isOver = true;
      }
      console.log(
        `${READS} reads were complete; ${await pausing} pauses, ${stale} answers of servers that lagged`,
      );
    },
  );
});
