import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Backups } from '../../src/feed/backups.js';
import { ANYONE } from '../../src/feed/caller.js';
import type { FeedError } from '../../src/feed/errors.js';
import type { Backup, EventRepository } from '../../src/repository/event-repository.js';

const operator = { caller: ANYONE, peer: '127.0.0.1:1' };

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Begins a backup of three chunks. */
function begin() {
  const lines: Record<string, unknown>[] = [];
  const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const state = { isReleased: false, grownBytes: 0 };
  const backup: Backup = {
    bytes: 3,
    get grownBytes() {
      return state.grownBytes;
    },
    async *chunks() {
      for (const text of ['a', 'b', 'c']) yield Buffer.from(text);
    },
    release: () => void (state.isReleased = true),
  };
  const repository = { backup: () => Promise.resolve(backup) } as unknown as EventRepository;
  const aborts: unknown[] = [];
  const parts = new Backups(repository, log).backUp(operator, {
    bytes: 0,
    abort: (reason) => void aborts.push((reason as FeedError).reason),
  });
  return { parts, state, aborts, lines };
}

test('a backup of which nothing is read for a minute is given up, and its room with it', async () => {
  const { parts, state, aborts } = begin();
  await parts.next();
  vi.advanceTimersByTime(59_000);
  expect((await parts.next()).value).toMatchObject({ totalBytes: 3, data: Buffer.from('b') });
  vi.advanceTimersByTime(59_000);
  expect(aborts).toEqual([]);
  vi.advanceTimersByTime(2_000);
  expect(aborts).toEqual(['TOO_SLOW']);
  await parts.return(undefined);
  expect(state.isReleased).toBe(true);
  expect(vi.getTimerCount()).toBe(0);
});

test('the log says once a minute that a backup makes the file grow, and when it is done', async () => {
  const { parts, state, lines } = begin();
  await parts.next();
  vi.advanceTimersByTime(50_000);
  await parts.next();
  vi.advanceTimersByTime(15_000);
  const grown = () => lines.filter(({ msg }) => /grows until/.test(String(msg)));
  expect(grown()).toEqual([]);
  state.grownBytes = 1_000;
  vi.advanceTimersByTime(40_000);
  await parts.next();
  vi.advanceTimersByTime(40_000);
  expect(grown()).toMatchObject([{ grownBytes: 1_000 }]);
  expect((await parts.next()).done).toBe(true);
  expect(lines.at(-1)).toMatchObject({ msg: 'the backup is done', grownBytes: 1_000 });
  expect(state.isReleased).toBe(true);
});
