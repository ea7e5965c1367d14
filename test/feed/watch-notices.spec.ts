import { pino } from 'pino';
import { expect, onTestFinished, test, vi } from 'vitest';
import { HeadHistory } from '../../src/feed/head-history.js';
import { WatchNotices } from '../../src/feed/watch-notices.js';
import type { Watch, Watches } from '../../src/feed/watch.js';
import type { EventRepository } from '../../src/repository/event-repository.js';

// With a clock of its own, because a watch is slow only after half a minute. test/e2e/watch.spec.ts has a real watch that
// retention overtakes.

const SECOND = 1_000;

interface FakeWatch {
  topics: readonly string[];
  position: number;
  hasCaughtUp: boolean;
  isSending: boolean;
}

function start() {
  vi.useFakeTimers();
  const lines: Record<string, unknown>[] = [];
  const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line) as never) });
  const repository = { head: 0, history: 0 };
  const heads = new HeadHistory(repository as EventRepository);
  const open = new Set<Watch>();
  const watches = { open, onOvertaken: (_watch: Watch) => {} };
  const notices = new WatchNotices(watches as Watches, heads, log);
  onTestFinished(() => {
    notices.onApplicationShutdown();
    heads.onApplicationShutdown();
    vi.useRealTimers();
  });
  const add = (fake: FakeWatch): FakeWatch => {
    const watch = Object.assign(fake, {
      call: { peer: '10.0.0.1:1', notes: { principal: 'ann' } },
      isBehind: (head: number) => fake.isSending && fake.position < head,
    });
    open.add(watch as unknown as Watch);
    return fake;
  };
  /** Stores an event each second. */
  const pass = (seconds: number, follow: FakeWatch[] = []): void => {
    for (let i = 0; i < seconds; i++) {
      repository.head++;
      for (const watch of follow) watch.position = repository.head;
      vi.advanceTimersByTime(SECOND);
    }
  };
  return { lines, add, pass, watches };
}

const behind = (topic: string): FakeWatch => ({
  topics: [topic],
  position: 0,
  hasCaughtUp: true,
  isSending: true,
});

test('a watch that falls half a minute behind is logged once, until it has caught up', () => {
  const { lines, add, pass } = start();
  const slow = add(behind('orders'));
  const keepsUp = add(behind('users'));
  add({ ...behind('old'), hasCaughtUp: false });
  pass(25, [keepsUp]);
  expect(lines).toEqual([]);
  pass(100, [keepsUp]);
  expect(lines).toMatchObject([
    { level: 40, topic: 'orders', peer: '10.0.0.1:1', principal: 'ann' },
  ]);
  // It got some events, and is still slow.
  slow.position = 100;
  pass(10, [keepsUp]);
  expect(lines).toHaveLength(1);
  slow.isSending = false;
  pass(10, [keepsUp]);
  slow.isSending = true;
  pass(100, [keepsUp]);
  expect(lines).toHaveLength(2);
});

test('many that fall behind together are one line', () => {
  const { lines, add, pass } = start();
  for (let i = 0; i < 1_000; i++) add(behind('orders'));
  pass(60);
  expect(lines).toHaveLength(1);
  expect(lines[0].msg).toContain('and 999 more');
});

test('watches that are overtaken are at most one line a minute, and each is counted once', () => {
  const { lines, add, pass, watches } = start();
  const watch = add(behind('orders')) as unknown as Watch;
  for (let i = 0; i < 5; i++) watches.onOvertaken(watch);
  expect(lines).toMatchObject([{ level: 40, overtaken: 1, topic: 'orders' }]);
  pass(20);
  watches.onOvertaken(watch);
  pass(60);
  const overtaken = lines.filter(({ overtaken: count }) => count !== undefined);
  expect(overtaken.map(({ overtaken: count }) => count)).toEqual([1, 5]);
});
