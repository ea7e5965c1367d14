import { describe, expect, it, onTestFinished } from 'vitest';
import type { EngineCommit } from '../../src/repository/engine.js';
import { EventLog } from '../../src/repository/event-log.js';
import { MemoryEngine } from '../../src/repository/memory/memory-engine.js';
import { KEEP_ALL, Retention, type RetentionLimits } from '../../src/repository/retention.js';
import { testClock } from '../contract/test-clock.js';
import { checked } from '../wire/events.js';

/** An engine that refuses commits when the test says so. */
class FailingEngine extends MemoryEngine {
  isFailing = false;
  override commit(commit: EngineCommit): Promise<void> {
    return this.isFailing ? Promise.reject(new Error('no luck')) : super.commit(commit);
  }
}

/** An engine that holds 30 commits of an event each in two topics, stored at the times 1 to 30. */
async function filled(): Promise<FailingEngine> {
  const engine = new FailingEngine();
  let now = 0;
  const log = new EventLog(engine, { clock: testClock(() => now) });
  for (now = 1; now <= 30; now++)
    await log.openWriter().append(checked({ topic: `t${now % 2}`, body: 'x'.repeat(1_000) }));
  await log.close();
  // As if it was opened again.
  return Object.assign(engine, { start: { ...engine.start, head: log.head } });
}

const over: [string, Partial<RetentionLimits>][] = [
  ['an age', { maxAge: 20 }],
  ['bytes', { maxBytes: 10_000 }],
  ['bytes of a topic', { topicMaxBytes: 5_000 }],
];

describe('a topic', () => {
  it('that is to be removed while a commit removes some of it is removed whole', async () => {
    const engine = await filled();
    const retention = new Retention({ ...KEEP_ALL, topicMaxBytes: 5_000 }, engine);
    retention.chooseFromQuietTopics(true);
    const some = retention.plan([], 40);
    retention.chooseAllOf('t1');
    await engine.commit({ ...NOTHING, removal: some });
    retention.confirm(some);
    expect(retention.isChosen('t1')).toBe(true);
    const rest = retention.plan([], 40);
    await engine.commit({ ...NOTHING, removal: rest });
    retention.confirm(rest);
    expect(retention.isChosen('t1')).toBe(false);
    expect(engine.runs.newest('t1', Number.MAX_SAFE_INTEGER)).toBeUndefined();
  });
});

describe.each(over)('what is over %s', (_, limits) => {
  it('is planned the same, whoever has asked whether it is due', async () => {
    const engine = await filled();
    const [asked, other] = [0, 1].map(() => new Retention({ ...KEEP_ALL, ...limits }, engine));
    for (const retention of [asked, other]) retention.chooseFromQuietTopics(true);
    for (let i = 0; i < 5; i++) {
      expect(asked.isDue(40, true)).toBe(true);
      asked.isDue(40, false);
    }
    const plan = asked.plan([], 40);
    expect(plan.runs.size).toBe(2);
    expect(plan).toEqual(other.plan([], 40));
  });

  it('is planned again, all of it, if the commit fails that was to remove it', async () => {
    const engine = await filled();
    const retention = new Retention({ ...KEEP_ALL, ...limits }, engine);
    retention.chooseFromQuietTopics(true);
    const failed = retention.plan([], 40);
    const again = retention.plan([], 40);
    expect(again.runs).toEqual(failed.runs);
    expect(retention.isDue(40, true)).toBe(true);
    await engine.commit({ ...NOTHING, removal: again });
    retention.confirm(again);
    retention.chooseFromQuietTopics(true);
    expect(retention.isDue(40, true)).toBe(false);
    expect(retention.plan([], 40).runs.size).toBe(0);
  });

  it('goes with the next commit, after some that failed', async () => {
    const engine = await filled();
    const log = new EventLog(engine, {
      retention: { ...KEEP_ALL, ...limits },
      clock: testClock(() => 40),
    });
    onTestFinished(() => log.close());
    const append = () => log.openWriter().append(checked({ topic: 't0' }, { topic: 't1' }));
    engine.isFailing = true;
    for (let i = 0; i < 3; i++) await expect(append()).rejects.toThrow('no luck');
    expect(await log.floor('t0')).toBe(0);
    engine.isFailing = false;
    await append();
    expect(await log.floor('t0')).toBeGreaterThan(10);
    expect(await log.floor('t1')).toBeGreaterThan(10);
    const held = ['t0', 't1'].flatMap((topic) => [...engine.runs.upTo(topic, log.head)]);
    expect(engine.heldBytes).toBe(held.reduce((sum, { size }) => sum + size, 0));
  });
});

it('a topic is removed though events that come meanwhile are over the quota', async () => {
  const engine = new MemoryEngine();
  const bytes = Buffer.alloc(20);
  // More runs than three commits remove.
  const runs = Array.from({ length: 2_000 }, (_, i) => {
    return { topic: 'old', first: i + 1, last: i + 1, count: 1, bytes, storedAt: 1 };
  });
  await engine.commit({ ...NOTHING, runs, removal: { runs: new Map(), commits: [] } });
  Object.assign(engine, { start: { ...engine.start, head: runs.length, storedAt: 1 } });
  const retention = { ...KEEP_ALL, quotaBytes: engine.heldBytes };
  const log = new EventLog(engine, { retention, clock: testClock(() => 40) });
  onTestFinished(() => log.close());
  const append = () =>
    log.openWriter().append(checked({ topic: 'new', body: 'x'.repeat(bytes.length * 1_800) }));
  const [removal, early] = await Promise.allSettled([log.removeTopic('old'), append()]);
  expect(early).toMatchObject({ status: 'rejected', reason: { reason: 'storage-full' } });
  expect(removal).toEqual({ status: 'fulfilled', value: undefined });
  expect(engine.heldBytes).toBe(0);
  await append();
});

const NOTHING = { runs: [], ids: [], horizon: { position: Infinity, storedAt: 0 }, lag: 0 };
