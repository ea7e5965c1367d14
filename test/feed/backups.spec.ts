import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Backups } from '../../src/feed/backups.js';
import { ANYONE } from '../../src/feed/caller.js';
import type { FeedError } from '../../src/feed/errors.js';
import type { Backup, EventRepository } from '../../src/repository/event-repository.js';

const BY_OPERATOR = new Error('ended by an operator');

const operator = { caller: ANYONE, peer: '127.0.0.1:1' };

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const ready = (): Promise<void> => Promise.resolve();

/** Begins a backup of three chunks, each of which waits for `disk`, as its beginning does for `commit`. */
function begin(disk = ready, commit = ready) {
  const lines: Record<string, unknown>[] = [];
  const log = pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const state = { isReleased: false, grownBytes: 0 };
  const backup: Backup = {
    bytes: 3,
    get grownBytes() {
      return state.grownBytes;
    },
    async *chunks() {
      for (const text of ['a', 'b', 'c']) {
        await disk();
        yield Buffer.from(text);
      }
    },
    release: () => void (state.isReleased = true),
  };
  const repository = { backup: () => commit().then(() => backup) } as unknown as EventRepository;
  const aborts: unknown[] = [];
  const controller = new AbortController();
  const abort = (reason: Error): void => {
    aborts.push((reason as FeedError).reason);
    controller.abort(reason);
  };
  const call = { bytes: 0, signal: controller.signal, abort };
  const parts = new Backups(repository, log).backUp(operator, call);
  return { parts, state, aborts, lines, abort };
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

test('a backup that waits for the disk is not given up as one that nobody reads', async () => {
  const disk = Promise.withResolvers<void>();
  const { parts, aborts } = begin(() => disk.promise);
  const first = parts.next();
  await vi.advanceTimersByTimeAsync(300_000);
  expect(aborts).toEqual([]);
  disk.resolve();
  expect((await first).value).toMatchObject({ data: Buffer.from('a') });
  await parts.return(undefined);
  expect(vi.getTimerCount()).toBe(0);
});

test('a backup whose client reads on after the service stood still for a minute is not given up', async () => {
  const { parts, aborts } = begin();
  await parts.next();
  // Timers run first. Then node reads the bytes that the client has sent meanwhile.
  setTimeout(() => setImmediate(() => void parts.next()), 60_000);
  await vi.advanceTimersByTimeAsync(61_000);
  expect(aborts).toEqual([]);
  await parts.return(undefined);
});

test('a backup that is ended while the disk does not answer ends at once', async () => {
  const { parts, state, abort } = begin(() => new Promise(() => {}));
  const ended = vi.fn<(error: Error) => void>();
  parts.next().catch(ended);
  await vi.advanceTimersByTimeAsync(1_000);
  abort(BY_OPERATOR);
  await vi.advanceTimersByTimeAsync(0);
  expect(ended).toHaveBeenCalledWith(BY_OPERATOR);
  expect(state.isReleased).toBe(true);
  expect(vi.getTimerCount()).toBe(0);
});

test('a backup that is ended before it has begun ends at once, and leaves nothing', async () => {
  const commit = Promise.withResolvers<void>();
  const { parts, state, abort } = begin(ready, () => commit.promise);
  const ended = vi.fn<(error: Error) => void>();
  parts.next().catch(ended);
  abort(BY_OPERATOR);
  await vi.advanceTimersByTimeAsync(0);
  expect(ended).toHaveBeenCalledWith(BY_OPERATOR);
  expect(state.isReleased).toBe(false);
  commit.resolve();
  await vi.advanceTimersByTimeAsync(0);
  expect(state.isReleased).toBe(true);
  expect(vi.getTimerCount()).toBe(0);
});
