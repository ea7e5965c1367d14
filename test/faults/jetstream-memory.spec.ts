import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { jetstreamSettings, NATS_SERVER, NatsServer } from '../support/nats.js';
import { ServiceProcess } from '../support/service.js';

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
