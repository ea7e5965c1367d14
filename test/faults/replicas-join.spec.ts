import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { openReplica } from '../contract/stream.js';
import { take } from '../support/client.js';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { ServiceProcess } from '../support/service.js';
import { checked } from '../wire/events.js';

/** How large the log is that a replica joins. */
const LOG_BYTES = Number(process.env.FEED_TEST_NATS_LOG_BYTES ?? 64 * 2 ** 20);
const EVENT_BYTES = 64 * 1024;
const WRITERS = 8;
const TOPICS = 100;
/** What was stored in the last WINDOW milliseconds is read at a start, because deduplication needs its ids. */
const WINDOW = 2_000;
/** What a start may read beside that: records of epochs, and the messages that its binary search looks at. */
const MOST_READ = 4 * 2 ** 20;

const MIB = 2 ** 20;
const mebibytes = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`;

test.skipIf(!NATS_SERVER)(
  `a replica joins a log of ${mebibytes(LOG_BYTES)} without reading it`,
  { timeout: 120_000 + LOG_BYTES / 5_000 },
  async () => {
    const servers = await NatsServer.start(1, { jetstream: 'max_file: 64GB' });
    onTestFinished(() => servers[0].remove());
    const settings: Record<string, string> = {
      ...jetstreamSettings(servers),
      FEED_DEDUP_WINDOW: `${WINDOW}ms`,
    };
    const log = await openReplica(servers[0], settings.FEED_NATS_STREAM, {
      dedup: { ids: 1_000_000, milliseconds: WINDOW },
    });
    const body = 'x'.repeat(EVENT_BYTES);
    let stored = 0;
    const write = async (writer: number): Promise<void> => {
      const events = log.openWriter();
      while (stored < LOG_BYTES) {
        const batch = Array.from({ length: 4 }, (_, i) => ({
          topic: `t${(writer + i) % TOPICS}`,
          id: `${stored}-${writer}-${i}`,
          body,
        }));
        stored += batch.length * EVENT_BYTES;
        await events.append(checked(...batch));
      }
    };
    const began = performance.now();
    await Promise.all(Array.from({ length: WRITERS }, (_, i) => write(i)));
    const filled = performance.now() - began;
    const { head } = log;
    await log.close();

    const sent = async (): Promise<number> => {
      const answer = await fetch(`${servers[0].monitorUrl}/varz`);
      return ((await answer.json()) as { out_bytes: number }).out_bytes;
    };
    /** Starts a replica. Returns what it did until it was ready. */
    const join = async (): Promise<{ took: number; read: number; service: ServiceProcess }> => {
      const before = await sent();
      const start = performance.now();
      const service = await ServiceProcess.start(settings);
      return { took: performance.now() - start, read: (await sent()) - before, service };
    };
    const atOnce = await join();
    await atOnce.service.kill('SIGTERM');
    await sleep(WINDOW);
    const later = await join();
    expect(later.read).toBeLessThan(MOST_READ);
    // It serves all of it.
    const client = later.service.connect();
    const [first] = await take(client, { topic: 't0', position: 1 }, 1);
    expect(first.body).toHaveLength(EVENT_BYTES);
    const [last] = await take(client, { topic: 't0', last: 1 }, 1);
    expect(last.cursor > first.cursor).toBe(true);
    console.log(
      `${mebibytes(stored)} stored in ${Math.round(filled)} ms, up to position ${head}; ` +
        `a replica joined in ${Math.round(later.took)} ms and read ${mebibytes(later.read)}; ` +
        `one that joined while the deduplication window was full: ${Math.round(atOnce.took)} ms, ${mebibytes(atOnce.read)}`,
    );
  },
);
