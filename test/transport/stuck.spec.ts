import { EventEmitter } from 'node:events';
import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Connections } from '../../src/grpc/transport/connections.js';

const SECOND = 1_000;
/** For how long the clock has gone on while the timers of this process stood still. */
let stoodStill = 0;

beforeEach(() => {
  stoodStill = 0;
  vi.useFakeTimers({ toFake: ['Date', 'setInterval', 'clearInterval', 'setTimeout'] });
  vi.spyOn(performance, 'now').mockImplementation(() => Date.now() + stoodStill);
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** A connection that may send no more, with a call whose client has not read `unread` bytes of its answer. */
function shut(unread: number) {
  // The client is alive: something has come whenever the server looks.
  let bytesRead = 0;
  const socket = {
    get bytesRead() {
      return ++bytesRead;
    },
  };
  const session = Object.assign(new EventEmitter(), {
    socket,
    state: {},
    setLocalWindowSize: () => {},
    goaway: () => {},
    destroy: () => {},
  }) as unknown as ServerHttp2Session;
  const connections = new Connections(
    { time: 30 * SECOND, timeout: 10 * SECOND },
    { connection: 1, total: 1, names: { connection: 'own', total: 'all' } },
    { maxAge: 0, onOld: () => {}, certificates: undefined, onExpired: () => {} },
  );
  connections.add(session, new PassThrough());
  const state = { session, writableLength: unread };
  const stream = state as unknown as ServerHttp2Stream;
  const connection = connections.of(stream)!;
  connection.inbound.isShut = true;
  connection.calls.add({
    stream,
    endless: true,
    isDuplex: true,
    finished: false,
    pending: 0,
    abortUnread: () => {},
  });
  return { state, ended: () => connections.ended.get('own') ?? 0 };
}

test('the time in which the service stood still is not held against a client that does not read', () => {
  const { ended } = shut(1);
  vi.advanceTimersByTime(5 * SECOND);
  stoodStill = 60 * SECOND;
  vi.advanceTimersByTime(30 * SECOND);
  expect(ended()).toBe(0);
  vi.advanceTimersByTime(10 * SECOND);
  expect(ended()).toBe(1);
});

test('nor is the time in which it had no answer to read', () => {
  const { state, ended } = shut(0);
  vi.advanceTimersByTime(60 * SECOND);
  state.writableLength = 1;
  vi.advanceTimersByTime(35 * SECOND);
  expect(ended()).toBe(0);
  vi.advanceTimersByTime(10 * SECOND);
  expect(ended()).toBe(1);
});
