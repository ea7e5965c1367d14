import { status } from '@grpc/grpc-js';
import { describe, expect, test } from 'vitest';
import { epochOf, formatCursor } from '../../src/wire/cursor.js';
import type {
  History,
  Seen,
  SeenOfSet,
  SetWatchRecord,
  UploadRecord,
  WatchRecord,
} from './history.js';
import { validators } from './validators.js';

const cursor = (position: number): string => formatCursor({ epoch: epochOf(0), position });

/** Makes events from positions and ids. The id '' is a heartbeat. */
const seen = (...events: [position: number, id: string][]): Seen[] =>
  events.map(([position, id]) => ({ cursor: cursor(position), id, intact: true }));

/** The position of each stored event. */
const POSITIONS: Record<string, number> = { a: 1, b: 2, c: 4, d: 5 };
/** A position without an event. */
const EMPTY_POSITION = 3;

const uploaded = (
  producer: string,
  ids: string,
  result?: UploadRecord['result'],
  lastPosition = POSITIONS[ids.at(-1)!] ?? EMPTY_POSITION,
): UploadRecord => ({
  producer,
  events: ids.split('').map((id) => ({ topic: 't', id })),
  result: result ?? { is: 'stored', received: ids.length, duplicates: 0 },
  lastCursor: result && result.is !== 'stored' ? '' : cursor(lastPosition),
  begun: 10_000,
  ended: 20_000,
});

const watched = (
  watcher: string,
  start: WatchRecord['start'],
  events: Seen[],
  rest: Partial<WatchRecord> = {},
): WatchRecord => ({
  watcher,
  topic: 't',
  start,
  headers: { head: cursor(2), earliest: cursor(0) },
  seen: events,
  ...rest,
});

const earliest = { is: 'earliest' } as const;
const after = (position: number) => ({ is: 'after', cursor: cursor(position) }) as const;
const all = seen([1, 'a'], [2, 'b'], [4, 'c'], [5, 'd'], [6, '']);
const lastReader = watched('last', earliest, all);
const steadyReader = watched('steady', earliest, all);

const seenOfSet = (...events: [position: number, id: string][]): SeenOfSet[] =>
  seen(...events).map((one) => ({ ...one, topic: 't' }));

const setWatched = (
  start: WatchRecord['start'],
  events: SeenOfSet[],
  rest: Partial<SetWatchRecord> = {},
): SetWatchRecord => ({
  watcher: 's',
  topics: ['t', 'u'],
  start,
  headers: { head: cursor(2), earliest: cursor(2) },
  seen: events,
  skips: false,
  ...rest,
});

/**
 * A history without a breach: two producers upload four events; two readers read them all; the watcher w has a break and
 * heartbeats; the watcher u is told of a gap before its first event, and the watcher v after it.
 */
const good: History = {
  retention: true,
  isReplicated: false,
  uploads: [uploaded('p', 'ab'), uploaded('q', 'cd')],
  watches: [
    watched('w', { is: 'live' }, seen([4, 'c'], [4, ''])),
    watched('w', after(4), seen([5, 'd'], [6, ''])),
    watched('u', { is: 'last', count: 2 }, [], {
      refusal: { reason: 'CURSOR_EXPIRED', earliest: cursor(4) },
    }),
    watched('u', after(4), seen([5, 'd'], [6, ''])),
    watched('v', { is: 'last', count: 2 }, seen([1, 'a']), {
      refusal: { reason: 'CURSOR_EXPIRED', earliest: cursor(4) },
    }),
    // The heartbeat has the cursor of an event that is gone.
    watched('v', after(4), seen([4, ''], [5, 'd'])),
    steadyReader,
    lastReader,
  ],
  setWatches: [
    setWatched({ is: 'earliest' }, seenOfSet([1, 'a'], [4, 'c'])),
    setWatched(after(2), seenOfSet([4, 'c'], [5, 'd'], [6, ''])),
    setWatched({ is: 'last', count: 2 }, seenOfSet([1, 'a'], [2, 'b'], [4, 'c'])),
    setWatched(after(1), seenOfSet([4, 'c']), { skips: true }),
    setWatched(after(2), seenOfSet([4, 'c']), {
      skips: true,
      headers: { head: cursor(4), earliest: cursor(0) },
    }),
    setWatched(after(4), seenOfSet([5, 'd']), {
      refusal: { reason: 'CURSOR_EXPIRED', earliest: cursor(6) },
    }),
  ],
};

test('no validator finds a breach in a good history', () => {
  for (const [promise, validate] of Object.entries(validators))
    expect([promise, ...validate(good)]).toEqual([promise]);
});

const watching = (...watches: WatchRecord[]): History => ({
  ...good,
  watches: [...watches, steadyReader, lastReader],
});
const watchingSet = (...parts: Parameters<typeof setWatched>): History => ({
  ...good,
  setWatches: [setWatched(...parts)],
});
const uploading = (...uploads: UploadRecord[]): History => ({ ...good, uploads });
const expired = (position: number) => ({
  refusal: { reason: 'CURSOR_EXPIRED', earliest: cursor(position) },
});

test.each<[promise: string, what: string, history: History]>([
  ['ordered', 'events out of order', watching(watched('w', after(0), seen([2, 'b'], [1, 'a'])))],
  ['ordered', 'an event twice', watching(watched('w', after(0), seen([1, 'a'], [1, 'a'])))],
  [
    'ordered',
    'an event before a heartbeat that came before it',
    watching(watched('w', after(0), seen([2, ''], [1, 'a']))),
  ],
  ['ordered', 'another event at a position', watching(watched('w', after(1), seen([2, 'x'])))],
  ['ordered', 'a producer out of its order', uploading(uploaded('p', 'ba'), uploaded('q', 'cd'))],
  [
    'ordered',
    'another body',
    watching(watched('w', after(0), [{ cursor: cursor(1), id: 'a', intact: false }])),
  ],
  ['unique', 'an event stored twice', watching(watched('w', after(6), seen([7, 'a'])))],
  [
    'unique',
    'an event taken for a duplicate',
    uploading(uploaded('p', 'abcd', { is: 'stored', received: 4, duplicates: 1 })),
  ],
  [
    'unique',
    'an event taken for a duplicate, beside an upload that failed',
    uploading(
      uploaded('p', 'e', { is: 'failed', received: 0, reason: 'DRAINING' }),
      uploaded('q', 'abcd', { is: 'stored', received: 4, duplicates: 1 }),
    ),
  ],
  ['unique', 'an event counted as new twice', uploading(uploaded('p', 'abcd'), uploaded('q', 'd'))],
  [
    'complete',
    'an event from before the time asked for',
    watching(watched('w', { is: 'since', time: 25_000 }, all)),
  ],
  [
    'complete',
    'an event missed that was stored since the time asked for',
    { ...watching(watched('w', { is: 'since', time: 5_000 }, seen([5, 'd']))), retention: false },
  ],
  ['sets', 'an event missed', watchingSet(after(2), seenOfSet([5, 'd']))],
  ['sets', 'an event missed of a live watch', watchingSet({ is: 'live' }, seenOfSet([5, 'd']))],
  [
    'sets',
    'an event missed that was held at the start',
    watchingSet({ is: 'earliest' }, seenOfSet([1, 'a'], [5, 'd'])),
  ],
  ['sets', 'a heartbeat past an event', watchingSet(after(2), seenOfSet([5, '']))],
  [
    'sets',
    'an event passed over that it did not ask to',
    watchingSet(after(1), seenOfSet([4, 'c'])),
  ],
  ['sets', 'an event twice', watchingSet(after(2), seenOfSet([4, 'c'], [4, 'c']))],
  ['sets', 'events out of order', watchingSet(after(2), seenOfSet([5, 'd'], [4, 'c']))],
  ['sets', 'an event from before its start', watchingSet(after(2), seenOfSet([2, 'b'], [4, 'c']))],
  ['sets', 'another event at a position', watchingSet(after(2), seenOfSet([4, 'x']))],
  [
    'sets',
    'a topic that it did not ask for',
    watchingSet(after(2), [{ ...seenOfSet([4, 'c'])[0], topic: 'v' }]),
  ],
  [
    'sets',
    'too few of the newest',
    {
      ...watchingSet({ is: 'last', count: 2 }, seenOfSet([2, 'b'], [4, 'c'])),
      retention: false,
    },
  ],
  [
    'sets',
    'a refusal without retention',
    { ...watchingSet(after(2), [], expired(4)), retention: false },
  ],
  ['sets', 'a gap behind it', watchingSet(after(4), seenOfSet([5, 'd']), expired(4))],
  ['complete', 'a watch that skips', watching(watched('w', after(0), seen([1, 'a'], [4, 'c'])))],
  ['complete', 'a live watch that skips', watching(watched('w', { is: 'live' }, seen([5, 'd'])))],
  [
    'complete',
    'a heartbeat past an event not sent',
    watching(watched('w', after(0), seen([1, 'a'], [3, '']))),
  ],
  [
    'complete',
    'an event from before the start',
    watching(watched('w', after(1), seen([1, 'a'], [2, 'b']))),
  ],
  [
    'complete',
    'too few of the newest',
    { ...watching(watched('w', { is: 'last', count: 2 }, seen([2, 'b']))), retention: false },
  ],
  [
    'complete',
    'too many of the newest',
    watching(watched('w', { is: 'last', count: 1 }, seen([1, 'a'], [2, 'b']))),
  ],
  [
    'resumable',
    'a cursor refused',
    watching(watched('w', after(1), [], { refusal: { reason: 'EPOCH_CHANGED' } })),
  ],
  [
    'resumable',
    'an event gone without retention',
    { ...watching(watched('w', after(1), [], expired(4))), retention: false },
  ],
  [
    'gapHonest',
    'a break that loses events',
    watching(watched('w', after(0), seen([1, 'a'])), watched('w', after(2), seen([4, 'c']))),
  ],
  [
    'gapHonest',
    'a gap with more events than the server declared',
    watching(
      watched('w', after(0), seen([1, 'a']), expired(2)),
      watched('w', after(4), seen([5, 'd'])),
    ),
  ],
  ['gapHonest', 'a gap of no positions', watching(watched('w', after(4), [], expired(4)))],
  ['gapHonest', 'a gap without events', watching(watched('w', after(2), [], expired(3)))],
  [
    'durable',
    'an acknowledged event that is not there',
    uploading(uploaded('p', 'abx'), uploaded('q', 'cd')),
  ],
  [
    'durable',
    'an event acknowledged where another one is',
    uploading(uploaded('p', 'ab', undefined, POSITIONS.a), uploaded('q', 'cd')),
  ],
  [
    'durable',
    'an acknowledged event that is not there, beside a gap that was declared',
    {
      ...good,
      uploads: [uploaded('p', 'ab'), uploaded('q', 'cdx', undefined, 6)],
      watches: [
        watched('steady', earliest, seen([1, 'a']), expired(4)),
        watched('steady', after(4), seen([5, 'd'], [7, ''])),
        lastReader,
      ],
    },
  ],
  [
    'durable',
    'an acknowledged event in a gap that another watcher was told of',
    {
      ...good,
      uploads: [uploaded('p', 'abx'), uploaded('q', 'cd')],
    },
  ],
  [
    'durable',
    'an acknowledgement of less than was sent',
    uploading(uploaded('p', 'ab', { is: 'stored', received: 1, duplicates: 0 })),
  ],
  [
    'durable',
    'more events stored than the status of a failed upload counts',
    uploading(uploaded('p', 'abc', { is: 'failed', received: 2, reason: 'DRAINING' })),
  ],
  [
    'durable',
    'a hole in what is stored of a broken upload',
    {
      ...uploading(uploaded('p', 'axb', { is: 'unknown', code: status.CANCELLED })),
      retention: false,
    },
  ],
  [
    'neverEarly',
    'an event that is not there in the end',
    { ...good, watches: [...good.watches, watched('u', after(2), seen([3, 'e']))] },
  ],
])('the validator "%s" finds a breach: %s', (promise, _what, history) => {
  expect(validators[promise](history)).not.toEqual([]);
});

describe('of several replicas, with retention', () => {
  const shared = (history: History): History => ({ ...history, isReplicated: true });
  /** The position that stands for any event of the first message: 2048 positions belong to each (message.ts). */
  const END = 2047;
  /** The event a is stored at 1, removed, and stored again at 7. */
  const again = {
    ...good,
    uploads: [...good.uploads, uploaded('p', 'a', undefined, 7)],
    watches: [...good.watches, watched('w', after(6), seen([7, 'a']))],
  };
  const startingAt = (head: number, floor: number): WatchRecord =>
    watched('x', after(7), [], { headers: { head: cursor(head), earliest: cursor(floor) } });
  const emptyGap = (upTo: number): History => ({
    ...good,
    watches: [
      watched('w', after(5), [], expired(upTo)),
      watched('steady', earliest, seen([1, 'a'], [2, 'b'], [4, 'c'], [5, 'd'], [4100, ''])),
      watched('last', earliest, seen([1, 'a'], [2, 'b'], [4, 'c'], [5, 'd'], [4100, ''])),
    ],
  });

  test.each<[string, promise: string, history: History]>([
    ['an event that was removed is stored again', 'unique', again],
    ['such an event stands behind those sent after it', 'ordered', again],
    [
      'both are stored, and the first one is removed',
      'unique',
      { ...again, watches: [...again.watches, startingAt(7, 1)] },
    ],
    ['a gap up to the end of a message is empty', 'gapHonest', emptyGap(END)],
    [
      'a gap ends before the cursor, and no event is between the two',
      'gapHonest',
      watching(watched('w', after(6), [], expired(5))),
    ],
  ])('it is no breach that %s, but for one log of one process', (_what, promise, history) => {
    expect(validators[promise](shared(history))).toEqual([]);
    expect(validators[promise](history)).not.toEqual([]);
  });

  test.each<[string, promise: string, history: History]>([
    [
      'an event is stored again while the first one is held',
      'unique',
      { ...again, watches: [...again.watches, startingAt(7, 0)] },
    ],
    [
      'an event that was sent once is out of its order',
      'ordered',
      uploading(uploaded('p', 'ba'), uploaded('q', 'cd')),
    ],
    ['a gap up to an event is empty', 'gapHonest', emptyGap(6)],
    [
      'a gap ends before events that the watch has got',
      'gapHonest',
      watching(watched('w', after(5), [], expired(4))),
    ],
    ['an event is stored again without retention', 'unique', { ...again, retention: false }],
  ])('it is a breach that %s', (_what, promise, history) => {
    expect(validators[promise](shared(history))).not.toEqual([]);
  });
});
