import { expect, test } from 'vitest';
import { CallLimits } from '../../src/feed/call-limits.js';
import { FeedError } from '../../src/feed/errors.js';
import { LimitHits } from '../../src/feed/limit-hits.js';
import { type LiveCall, LiveCalls } from '../../src/feed/live-calls.js';

const MANY = { inAll: 100, perConnection: 100, perPrincipal: 100 };

/** Opens a call. */
const open = (calls: LiveCalls, peer: string, principal?: string): LiveCall => {
  const call = callOf(peer, principal);
  calls.add(call);
  return call;
};

const callOf = (peer: string, principal?: string): LiveCall => ({
  method: '/feed.v1.FeedService/Watch',
  peer,
  notes: { principal },
  events: 0,
  bytes: 0,
  pending: 0,
  receivedAt: 0,
  startedAt: 0,
  endless: true,
  isStream: true,
  signal: new AbortController().signal,
  abort: () => {},
});

const limitOf = (claim: () => void): string | undefined => {
  try {
    claim();
    return undefined;
  } catch (error) {
    return (error as FeedError).metadata.limit;
  }
};

test('a principal has a limit over all its connections, and gets back what its ended calls had', () => {
  const calls = new LiveCalls();
  const hits = new LimitHits();
  const limits = new CallLimits(
    { watches: { ...MANY, perPrincipal: 2 }, uploads: MANY, chats: MANY },
    calls,
    hits,
  );
  const [first, second] = [open(calls, 'a:1', 'shop'), open(calls, 'b:1', 'shop')];
  limits.claim('watches', first);
  limits.claim('watches', second);
  expect(limitOf(() => limits.claim('watches', open(calls, 'c:1', 'shop')))).toBe(
    'FEED_MAX_WATCHES_PER_PRINCIPAL',
  );
  // Others, nameless ones and other kinds of calls are not counted there.
  expect(limitOf(() => limits.claim('watches', open(calls, 'c:1', 'bank')))).toBeUndefined();
  expect(limitOf(() => limits.claim('watches', open(calls, 'c:1')))).toBeUndefined();
  expect(limitOf(() => limits.claim('uploads', open(calls, 'c:1', 'shop')))).toBeUndefined();
  expect(hits.counts).toEqual(new Map([['FEED_MAX_WATCHES_PER_PRINCIPAL', 1]]));
  calls.delete(first);
  expect(limitOf(() => limits.claim('watches', open(calls, 'c:1', 'shop')))).toBeUndefined();
  expect(limitOf(() => limits.claim('watches', open(calls, 'c:1', 'shop')))).toBeDefined();
});

test('a call that was refused counts nowhere', () => {
  const calls = new LiveCalls();
  const limits = new CallLimits(
    { watches: { inAll: 2, perConnection: 1, perPrincipal: 100 }, uploads: MANY, chats: MANY },
    calls,
  );
  limits.claim('watches', open(calls, 'a:1'));
  const refused = open(calls, 'a:1');
  expect(limitOf(() => limits.claim('watches', refused))).toBe('FEED_MAX_WATCHES_PER_CONNECTION');
  calls.delete(refused);
  expect(limitOf(() => limits.claim('watches', open(calls, 'b:1')))).toBeUndefined();
  expect(limitOf(() => limits.claim('watches', open(calls, 'c:1')))).toBe('FEED_MAX_WATCHES');
});

test('a call that ended before its claim counts nowhere', () => {
  const calls = new LiveCalls();
  const one = { inAll: 1, perConnection: 1, perPrincipal: 1 };
  const limits = new CallLimits({ watches: one, uploads: one, chats: one }, calls);
  const gone = open(calls, 'a:1', 'shop');
  calls.delete(gone);
  limits.claim('watches', gone);
  expect(limitOf(() => limits.claim('watches', open(calls, 'a:1', 'shop')))).toBeUndefined();
});
