import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Child } from '../support/child.js';
import { runService } from '../support/service.js';
import type { ClientMethods } from './client-main.js';
import { type Cost, costOf } from './meter.js';

/** The size of an event as the client sends it. The stored event is a little larger. */
const EVENT_BYTES = 150;
const EVENTS = 20_000;

let client: Child<ClientMethods>;
beforeEach(() => (client = new Child<ClientMethods>(new URL('client-main.ts', import.meta.url))));
afterEach(() => client.kill());

const costPerEvent = (events: number, { writes, copied, allocated }: Cost): Cost => ({
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

// The limits are about twice today's costs. They catch jumps, such as one more message or object for each event.
describe('the hot path', () => {
  test('copies an event that is uploaded in a batch twice, and makes few objects for it', async () => {
    const { grpcAddress } = await runService();
    await client.call('connect', grpcAddress);
    await client.call('upload', 'warm.up', EVENTS, 200);
    const cost = await costOf(() => client.call('upload', 'costs', EVENTS, 200));
    expectWithin('an event uploaded', costPerEvent(EVENTS, cost), {
      writes: 0.01,
      copied: 4 * EVENT_BYTES,
      allocated: 400,
    });
  });

  test('delivers many events with one write, without copies or objects of their own', async () => {
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
    expectWithin('an event delivered', costPerEvent(EVENTS * watches, delivering), {
      writes: 0.01,
      copied: EVENT_BYTES / 10,
      allocated: 30,
    });
  });

  test('delivers an event that comes alone with one write and few objects for each watch, and no promise', async () => {
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
    expectWithin('an event delivered alone', costPerEvent(events * watches, delivering), {
      writes: 1.1,
      copied: EVENT_BYTES / 10,
      allocated: 1_000,
    });
  });
});
