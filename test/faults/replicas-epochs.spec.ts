import { describe, expect, test } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { upload } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER } from '../support/nats.js';
import { clusterForTests, startReplicas } from './replicas.js';

const UPLOADS_OF_A_REPLICA = 3;
const EVENTS_OF_AN_UPLOAD = 5_000;
const BODY = 'x'.repeat(500);

describe.skipIf(!NATS_SERVER)('replicas that often write the record of the epochs', () => {
  const servers = clusterForTests();

  test('know their stream, whichever of them wrote it last', { timeout: 180_000 }, async () => {
    // The record is written again after a quarter of this.
    const replicas = await startReplicas(3, {
      ...jetstreamSettings(servers()),
      FEED_RETENTION_MAX_BYTES: '2MiB',
    });
    const clients = replicas.map((replica) => replica.connect());
    const uploads = clients.flatMap((client, i) =>
      Array.from({ length: UPLOADS_OF_A_REPLICA }, (_part, k) => {
        const topic = `t${i}-${k}`;
        const events: Partial<Event>[] = Array.from({ length: EVENTS_OF_AN_UPLOAD }, (_, id) => ({
          topic,
          id: `${topic}-${id}`,
          body: BODY,
        }));
        return upload(client, events);
      }),
    );
    for (const { result, error } of await Promise.all(uploads)) {
      expect(error?.message).toBeUndefined();
      expect(result?.received).toBe(EVENTS_OF_AN_UPLOAD);
    }
    for (const replica of replicas)
      expect(replica.output.join('')).not.toMatch('not the one that this replica followed');
  });
});
