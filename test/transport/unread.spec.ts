import type { ServerHttp2Stream } from 'node:http2';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Connection } from '../../src/grpc/transport/connection.js';
import { whenUnread } from '../../src/grpc/transport/unread.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A call whose client answers each PING at once. */
function lingering(window: number, endless = false) {
  const stream = { writableLength: 0, writableEnded: false, writableFinished: false };
  const connection = { pings: { ask: (callback: () => void) => callback() }, outbound: { window } };
  let resets = 0;
  const call = {
    stream: stream as unknown as ServerHttp2Stream,
    connection: connection as unknown as Connection,
    endless,
    writesDone: 0,
  };
  whenUnread(call, () => resets++);
  return { stream, resets: () => resets };
}

test('an upload that waits for its disk is not taken for unread, however long it waits', () => {
  const { stream, resets } = lingering(65_535);
  vi.advanceTimersByTime(300_000);
  expect(resets()).toBe(0);
  stream.writableEnded = true;
  vi.advanceTimersByTime(2_000);
  expect(resets()).toBe(1);
  expect(vi.getTimerCount()).toBe(0);
});

test('an answer that its connection has no room for has a minute, from when there is one', () => {
  const { stream, resets } = lingering(0);
  vi.advanceTimersByTime(50_000);
  stream.writableLength = 1;
  vi.advanceTimersByTime(58_000);
  expect(resets()).toBe(0);
  vi.advanceTimersByTime(2_000);
  expect(resets()).toBe(1);
});

test('a stream of answers, of which one may wait for room on its connection, has a minute', () => {
  const { resets } = lingering(0, true);
  vi.advanceTimersByTime(59_000);
  expect(resets()).toBe(0);
  vi.advanceTimersByTime(2_000);
  expect(resets()).toBe(1);
});
