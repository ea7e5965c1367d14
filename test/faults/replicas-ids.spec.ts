import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { UploadResult } from '../../src/gen/feed/v1/feed.js';
import { type FeedClient, upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER } from '../support/nats.js';
import { randomFrom } from '../support/random.js';
import { clusterForTests, readUpTo, startReplicas } from './replicas.js';

/** How many different events there are. */
const EVENTS = Number(process.env.FEED_TEST_NATS_IDS ?? 2_000);
const SEED = Number(process.env.FEED_TEST_SEED ?? Math.floor(Math.random() * 1e9));
const TOPICS = ['a', 'b', 'c', 'd'];
const UPLOADERS_OF_A_REPLICA = 2;
const MOST_EVENTS_OF_A_CALL = 500;

describe.skipIf(!NATS_SERVER)('replicas that are sent the same ids at the same time', () => {
  const servers = clusterForTests();

  test.each([2, 3])(
    `have equal logs, and what %i of them store and call duplicates is what they were sent (FEED_TEST_SEED=${SEED})`,
    { timeout: 60_000 + EVENTS * 30 },
    async (count) => {
      const random = randomFrom(SEED);
      const replicas = await startReplicas(count, jetstreamSettings(servers()));
      const clients = replicas.map((replica) => replica.connect());
      const events = Array.from({ length: EVENTS }, (_, i) => ({
        topic: TOPICS[i % TOPICS.length],
        id: String(i),
        body: 'x'.repeat(random(300)),
      }));
      const lastCursors = new Map<string, string>();

      /** Sends all events in order, in calls of random sizes. */
      async function sendAll(client: FeedClient): Promise<UploadResult[]> {
        const results: UploadResult[] = [];
        for (let next = 0; next < EVENTS;) {
          const part = events.slice(next, next + 1 + random(MOST_EVENTS_OF_A_CALL));
          const { result, error } = await upload(client, part);
          if (!result) throw error;
          expect(result.received).toBe(part.length);
          const { id } = part.at(-1)!;
          // Whoever sends an event is told the same cursor of it.
          expect(lastCursors.get(id) ?? result.lastCursor).toBe(result.lastCursor);
          lastCursors.set(id, result.lastCursor);
          results.push(result);
          next += part.length;
          if (random(10) === 0) await sleep(random(50));
        }
        return results;
      }

      const began = performance.now();
      const uploaders = clients.flatMap((client) =>
        Array.from({ length: UPLOADERS_OF_A_REPLICA }, () => client),
      );
      const results = (await Promise.all(uploaders.map(sendAll))).flat();
      const took = performance.now() - began;
      const sent = results.reduce((sum, { received }) => sum + received, 0);
      const duplicates = results.reduce((sum, each) => sum + each.duplicates, 0);
      expect(sent).toBe(uploaders.length * EVENTS);

      let stored = 0;
      for (const topic of TOPICS) {
        await upload(clients[0], [{ topic, id: 'end' }]);
        const [log, ...others] = await Promise.all(
          clients.map((client) => readUpTo(client, topic, 'end')),
        );
        for (const other of others) expect(other).toEqual(log);
        const wanted = events.filter((event) => event.topic === topic);
        expect(log.map(({ id }) => id)).toEqual([...wanted.map(({ id }) => id), 'end']);
        expect(log.slice(0, -1).map(({ body }) => body)).toEqual(wanted.map(({ body }) => body));
        for (const { id, cursor } of log) expect(lastCursors.get(id) ?? cursor).toBe(cursor);
        stored += log.length - 1;
      }
      expect(stored + duplicates).toBe(sent);
      console.log(
        `${count} replicas: ${sent} events sent by ${uploaders.length} uploaders in ${Math.round(took)} ms, ` +
          `${stored} stored, ${duplicates} duplicates, ${results.length} calls`,
      );
    },
  );
});
