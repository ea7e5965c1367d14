import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Injectable, Module, type OnModuleDestroy } from '@nestjs/common';
import { describe, expect, onTestFinished, test } from 'vitest';
import { eventually, until, within } from '../../test/support/wait.js';
import { freeAddresses } from '../../test/support/ports.js';
import { ServiceProcess, temporaryDirectory } from '../../test/support/service.js';
import { connect, CursorExpiredError, type Event, type Feed } from '../src/index.js';
import {
  type EndedSubscription,
  type FeedEventContext,
  FeedModule,
  OnFeedEvent,
} from '../src/nest/index.js';
import { MemoryCheckpoint, startApp, startHandlers, startService } from './nest-app.js';

function producer(address: string): Feed {
  const feed = connect(address);
  onTestFinished(() => feed.close());
  return feed;
}

/** Returns new events with the ids from `first` to `first + count - 1`. */
function numbered(first: number, count: number, body = '') {
  return Array.from({ length: count }, (_, i) => ({ id: String(first + i), body }));
}

function numbers(first: number, count: number): string[] {
  return numbered(first, count).map(({ id }) => id);
}

describe('a handler', () => {
  test('gets each event once and in order, also when the service is killed and started again', async () => {
    const settings = { ...(await freeAddresses()), FEED_DATA_DIR: temporaryDirectory() };
    const service = await ServiceProcess.start(settings);
    const ids: string[] = [];
    const killed = Promise.withResolvers<void>();
    onTestFinished(() => killed.resolve());
    let atOnce = 0;
    let mostAtOnce = 0;

    @Injectable()
    class Orders {
      @OnFeedEvent('orders', { from: 'earliest' })
      async onOrder({ id }: Event) {
        mostAtOnce = Math.max(mostAtOnce, ++atOnce);
        ids.push(id);
        await (ids.length === 100 ? killed.promise : nextTurn());
        atOnce--;
      }
    }

    // Together they are more than the client takes ahead, so the kill cuts the watch in the middle of them.
    const before = numbered(0, 3_000, 'x'.repeat(2_000));
    await producer(service.grpcAddress).upload('orders', before);
    const { log } = await startHandlers(service.grpcAddress, Orders, { retry: { max: 500 } });
    await until(() => ids.length === 100, 'the first events');
    await service.kill('SIGKILL');
    killed.resolve();
    await until(() => log.of('warn').length > 0, 'the break in the log');

    await ServiceProcess.start(settings);
    await producer(service.grpcAddress).upload('orders', numbered(3_000, 100));
    await until(
      () => ids.length >= 3_100,
      () => `all events, not ${ids.length}`,
    );
    expect(ids).toEqual(numbers(0, 3_100));
    expect(mostAtOnce).toBe(1);
    expect(log.of('warn')[0]).toMatch(/^Orders\.onOrder \(orders\) connects again in \d+ ms/);
    await eventually(() =>
      expect(log.of('log').at(-1)).toBe('Orders.onOrder (orders) is live FeedModule'),
    );
  });

  test('that fails gets the same event again, and the next one after that', async () => {
    const service = await startService();
    const seen: [string, number][] = [];

    @Injectable()
    class Orders {
      @OnFeedEvent('orders', { from: 'earliest', retry: { initial: 10 } })
      async onOrder({ id }: Event, { attempt }: FeedEventContext) {
        seen.push([id, attempt]);
        await sleep(1);
        if (id === '1' && attempt <= 2) throw new Error('no stock');
      }
    }

    await producer(service.grpcAddress).upload('orders', numbered(0, 3));
    const { log } = await startHandlers(service.grpcAddress, Orders);
    await until(() => seen.length >= 5, 'five attempts');
    const attempts = [1, 2, 3].map((attempt) => ['1', attempt]);
    expect(seen).toEqual([['0', 1], ...attempts, ['2', 1]]);
    expect(log.of('error')).toHaveLength(2);
    expect(log.of('error')[1]).toMatch(
      /^Orders\.onOrder failed to handle event 1 of orders \(attempt 2\); next attempt in \d+ ms Error: no stock\n/,
    );
  });

  test('that fails goes on with the next event, with onError skip', async () => {
    const service = await startService();
    const seen: string[] = [];
    const checkpoint = new MemoryCheckpoint();

    @Injectable()
    class Orders {
      @OnFeedEvent('orders', { from: 'earliest', onError: 'skip', checkpoint })
      onOrder({ id }: Event) {
        seen.push(id);
        if (id !== '0') throw new Error('no stock');
      }
    }

    const { lastCursor } = await producer(service.grpcAddress).upload('orders', numbered(0, 3));
    const { context, log } = await startHandlers(service.grpcAddress, Orders);
    await until(() => seen.length >= 3, 'three events');
    await context.close();
    expect(seen).toEqual(numbers(0, 3));
    expect(log.of('error')[0]).toContain('event 1 of orders (attempt 1); it is skipped');
    expect(checkpoint.saved).toBe(lastCursor);
  });

  test('gets no more events after its cursor has expired, and the rest of the app goes on', async () => {
    const service = await startService({ FEED_RETENTION_MAX_BYTES: '1MiB' });
    const feed = producer(service.grpcAddress);
    const { lastCursor: cursor } = await feed.upload('orders', numbered(0, 1));
    for (let i = 0; i < 12; i++)
      await feed.upload('orders', numbered(1 + 400 * i, 400, 'x'.repeat(10_000)));
    // While retention goes on, there may be another gap.
    const held = async (): Promise<number> => (await feed.admin.getTopic('orders')).events;
    await until(async () => (await held()) < 150, 'retention to be done');
    const ends: EndedSubscription[] = [];
    const seen: string[] = [];

    @Injectable()
    class Orders {
      @OnFeedEvent('orders', { from: { cursor } })
      onOrder() {}

      @OnFeedEvent('orders', { from: { cursor }, expired: 'earliest' })
      onOrderAfterGap({ id }: Event) {
        seen.push(id);
      }
    }

    const { context, log } = await startHandlers(service.grpcAddress, Orders, {
      onEnd: (ended) => ends.push(ended),
    });
    await until(() => seen.at(-1) === '4800', 'the newest event');
    expect(seen).toEqual(numbers(Number(seen[0]), seen.length)); // nothing is missing after the gap
    await until(() => ends.length > 0, 'the end of the other watch');
    expect(ends).toMatchObject([{ topics: ['orders'], handler: 'Orders.onOrder' }]);
    expect(ends[0].error).toBeInstanceOf(CursorExpiredError);
    expect(log.of('error')[0]).toMatch(
      /^Orders\.onOrder \(orders\) gets no more events: its watch failed CursorExpiredError: /,
    );
    expect(log.of('warn')[0]).toContain('Orders.onOrderAfterGap (orders) missed events');
    await context.close(); // does not wait for the watch that ended
  });

  test('starts after its checkpoint, once that can be loaded', async () => {
    const service = await startService();
    const feed = producer(service.grpcAddress);
    const { lastCursor } = await feed.upload('orders', numbered(0, 2));
    await feed.upload('orders', numbered(2, 1));
    const seen: string[] = [];
    const checkpoint = new MemoryCheckpoint(lastCursor);
    let failures = 0;
    const failsTwice = async (): Promise<void> => {
      if (failures++ < 2) throw new Error('the database is away');
    };

    @Injectable()
    class Orders {
      @OnFeedEvent('orders', {
        from: 'earliest',
        checkpointEvery: { events: 1 },
        checkpoint: {
          load: () => failsTwice().then(() => checkpoint.load()),
          save: (cursor) => failsTwice().then(() => checkpoint.save(cursor)),
        },
      })
      onOrder({ id }: Event) {
        seen.push(id);
      }
    }

    const { log } = await startHandlers(service.grpcAddress, Orders);
    await until(() => checkpoint.saved! > lastCursor, 'a saved checkpoint');
    expect(seen).toEqual(['2']);
    expect(log.of('error')[0]).toContain("Orders.onOrder: the checkpoint can't be loaded");
    failures = 0;
    await feed.upload('orders', numbered(3, 2));
    await until(() => seen.length === 3, 'events, although the checkpoint is not saved');
    await until(() => failures > 2, 'a save that succeeds');
    expect(seen).toEqual(['2', '3', '4']);
    expect(log.of('error').at(-1)).toContain("Orders.onOrder: the checkpoint can't be saved");
  });

  test('handles each event exactly once through kills, if it keeps the cursor in its transaction', async () => {
    const service = await startService();
    const file = join(temporaryDirectory(), 'invoices.db');
    const events = 300;
    await producer(service.grpcAddress).upload('orders', numbered(0, events));
    let handled = 0;
    while (handled < events) {
      const app = spawn(process.execPath, [invoicesApp, service.grpcAddress, file], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const exited = once(app, 'exit');
      onTestFinished(() => void app.kill('SIGKILL'));
      // The app prints a line for each event; it is killed amid the next ones.
      const before = handled;
      for await (const _ of createInterface(app.stdout))
        if (++handled === events || handled === before + 100) app.kill('SIGKILL');
      expect(await exited).toEqual([null, 'SIGKILL']);
      handled = invoices(file).length;
    }
    expect(invoices(file)).toEqual(numbers(0, events));
  });
});

/** The program of an app that writes an invoice for each order. */
const invoicesApp = fileURLToPath(new URL('invoices-app.mjs', import.meta.url));

function invoices(file: string): unknown[] {
  const database = new DatabaseSync(file);
  const rows = database.prepare('SELECT order_id FROM invoices').all();
  database.close();
  return rows.map((row) => row.order_id);
}

describe('a shutdown', () => {
  /** Starts an app whose handler waits at each event until it is let go. */
  async function startSlow(
    address: string,
    checkpoint: MemoryCheckpoint,
    shutdownTimeout?: number,
  ) {
    const steps: string[] = [];
    const gate = Promise.withResolvers<void>();
    onTestFinished(() => gate.resolve());

    @Injectable()
    class Database implements OnModuleDestroy {
      onModuleDestroy() {
        steps.push('database closed');
      }
    }

    @Injectable()
    class Orders {
      @OnFeedEvent('orders', { from: 'earliest', checkpoint })
      async onOrder({ id }: Event, { signal }: FeedEventContext) {
        steps.push(`${id} begins`);
        signal.addEventListener('abort', () => steps.push(`${id} is given up`));
        if (id === '1') await gate.promise;
        steps.push(`${id} ends`);
      }
    }

    @Module({ providers: [Database], exports: [Database] })
    class DatabaseModule {}

    @Module({ imports: [DatabaseModule], providers: [Orders] })
    class OrdersModule {}

    const app = await startApp([OrdersModule, FeedModule.forRoot({ address, shutdownTimeout })]);
    await until(() => steps.includes('1 begins'), 'the second event');
    return { ...app, steps, letGo: gate.resolve };
  }

  test('lets a running handler finish and saves its cursor; the next start goes on after it', async () => {
    const service = await startService();
    const feed = producer(service.grpcAddress);
    const checkpoint = new MemoryCheckpoint();
    const { lastCursor } = await feed.upload('orders', numbered(0, 2));
    await feed.upload('orders', numbered(2, 2));
    const { context, steps, letGo } = await startSlow(service.grpcAddress, checkpoint);
    const closed = context.close().then(() => steps.push('closed'));
    await sleep(200);
    expect(steps.at(-1)).toBe('1 begins');
    letGo();
    await closed;
    expect(steps.slice(2)).toEqual(['1 begins', '1 ends', 'database closed', 'closed']);
    expect(checkpoint.saved).toBe(lastCursor);

    const seen: string[] = [];
    @Injectable()
    class Next {
      @OnFeedEvent('orders', { from: 'earliest', checkpoint })
      onOrder({ id }: Event) {
        seen.push(id);
      }
    }
    await startHandlers(service.grpcAddress, Next);
    await until(() => seen.length >= 2, 'the other events');
    expect(seen).toEqual(['2', '3']);
  });

  test('gives up a handler that takes too long, whose event then comes again', async () => {
    const service = await startService();
    const feed = producer(service.grpcAddress);
    const checkpoint = new MemoryCheckpoint();
    const { lastCursor } = await feed.upload('orders', numbered(0, 1));
    await feed.upload('orders', numbered(1, 1));
    const { context, log, steps } = await startSlow(service.grpcAddress, checkpoint, 300);
    await context.close();
    expect(steps.slice(2)).toEqual(['1 begins', '1 is given up', 'database closed']);
    expect(checkpoint.saved).toBe(lastCursor);
    expect(log.of('error')[0]).toContain('Orders.onOrder (orders) did not finish within 300 ms');
  });

  test('does not wait for the next attempt of a handler that fails', async () => {
    const service = await startService();
    const checkpoint = new MemoryCheckpoint();
    const feed = producer(service.grpcAddress);
    const { lastCursor } = await feed.upload('orders', numbered(0, 1));
    await feed.upload('orders', numbered(1, 1));
    let attempts = 0;

    @Injectable()
    class Orders {
      @OnFeedEvent('orders', {
        from: 'earliest',
        checkpoint,
        retry: { initial: 600_000, max: 600_000 },
      })
      async onOrder({ id }: Event) {
        if (id === '0') return;
        attempts++;
        throw new Error('no stock');
      }
    }

    const { context, log } = await startHandlers(service.grpcAddress, Orders);
    await until(() => log.of('error').length === 2, 'two attempts');
    await context.close();
    expect(attempts).toBe(2);
    expect(checkpoint.saved).toBe(lastCursor);
    expect(log.of('error')).toHaveLength(2); // it was not late
  });

  test('is quick while the service is away', async () => {
    const service = await startService();

    @Injectable()
    class Orders {
      @OnFeedEvent('orders')
      onOrder() {}
    }

    const { context, log } = await startHandlers(service.grpcAddress, Orders, {
      retry: { initial: 600_000, max: 600_000 },
      shutdownTimeout: 120_000,
    });
    await until(() => log.of('log').some((line) => line.includes('is live')), 'a live watch');
    await service.kill('SIGKILL');
    await until(() => log.of('warn').length >= 2, 'an attempt to connect again');
    await within(context.close(), 'the shutdown', 60_000);
    expect(log.of('error')).toEqual([]);
  });
});
