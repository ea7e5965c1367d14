import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Child } from '../support/child.js';
import { runService } from '../support/service.js';
import type { ClientMethods } from './client-main.js';
import { type Cost, costOf } from './meter.js';

/** Bytes of an event as it is sent, and about as it is stored. */
const EVENT_BYTES = 150;
const EVENTS = 20_000;

let client: Child<ClientMethods>;
beforeEach(() => (client = new Child<ClientMethods>(new URL('client-main.ts', import.meta.url))));
afterEach(() => client.kill());

const per = (events: number, { writes, copied, allocated }: Cost): Cost => ({
  writes: writes / events,
  copied: copied / events,
  allocated: allocated / events,
});

function expectWithin(what: string, cost: Cost, limit: Cost): void {
  console.log(
    `${what}: ${cost.writes.toFixed(4)} writes, ${cost.copied.toFixed(0)} bytes copied, ${cost.allocated.toFixed(0)} bytes allocated`,
  );
  expect(cost.writes).toBeLessThan(limit.writes);
  expect(cost.copied).toBeLessThan(limit.copied);
  expect(cost.allocated).toBeLessThan(limit.allocated);
}

// The limits are some two times what it costs today: they are for jumps, such as a message or an object an event.
describe('the hot path', () => {
  test('of an event that is uploaded in batches has two copies and few objects of its own', async () => {
    const { grpcAddress } = await runService();
    await client.call('connect', grpcAddress);
    await client.call('upload', 'warm.up', EVENTS, 200);
    const cost = await costOf(() => client.call('upload', 'costs', EVENTS, 200));
    expectWithin('an event uploaded', per(EVENTS, cost), {
      writes: 0.01,
      copied: 4 * EVENT_BYTES,
      allocated: 400,
    });
  });

  test('of an event that is delivered shares its write, its bytes and its objects with others', async () => {
    const watches = 50;
    const { grpcAddress } = await runService();
    await client.call('connect', grpcAddress);
    await client.call('upload', 'warm.up', EVENTS, 200);
    const alone = await costOf(() => client.call('upload', 'alone', EVENTS, 200));
    const all = await costOf(async () => {
      await client.call('watch', 'costs', watches, EVENTS);
      await client.call('upload', 'costs', EVENTS, 200);
      await client.call('delivered');
    });
    const delivering = {
      writes: all.writes,
      copied: all.copied - alone.copied,
      allocated: all.allocated - alone.allocated,
    };
    expectWithin('an event delivered', per(EVENTS * watches, delivering), {
      writes: 0.01,
      copied: EVENT_BYTES / 10,
      allocated: 30,
    });
  });

  test('of an event that comes alone has a write and few objects for each watch, and no promise', async () => {
    const watches = 200;
    const events = 100;
    const { grpcAddress } = await runService();
    await client.call('connect', grpcAddress);
    await client.call('upload', 'warm.up', EVENTS, 200);
    const alone = await costOf(() => client.call('uploadEach', 'alone', events));
    const all = await costOf(async () => {
      await client.call('watch', 'costs', watches, events);
      await client.call('uploadEach', 'costs', events);
      await client.call('delivered');
    });
    const opening = await costOf(async () => {
      await client.call('watch', 'opened', watches, 0);
    });
    const delivering = {
      writes: all.writes - alone.writes - opening.writes,
      copied: all.copied - alone.copied - opening.copied,
      allocated: all.allocated - alone.allocated - opening.allocated,
    };
    expectWithin('an event delivered alone', per(events * watches, delivering), {
      writes: 1.1,
      copied: EVENT_BYTES / 10,
      allocated: 1_000,
    });
  });
});
