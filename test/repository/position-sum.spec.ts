import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import type { EventLog } from '../../src/repository/event-log.js';
import type { DedupWindow } from '../../src/repository/event-repository.js';
import { openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import { KEEP_ALL, type RetentionLimits } from '../../src/repository/retention.js';
import { forgetLog } from '../contract/checked-lmdb.js';
import { testClock } from '../contract/test-clock.js';
import { temporaryDirectory } from '../support/service.js';
import { checked } from '../wire/events.js';

const TOPICS = ['a', 'b', 'c'];

/** One step of the life of a log. A number is a wait, in milliseconds of its clock. */
type Step =
  { topic: string; events: number; bytes: number } | { remove: string } | 'reopen' | number;

const append = fc.record({
  topic: fc.constantFrom(...TOPICS),
  events: fc.integer({ min: 1, max: 3 }),
  bytes: fc.nat(3_000),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 20, arbitrary: append },
  { weight: 5, arbitrary: fc.nat(600) },
  { weight: 1, arbitrary: fc.record({ remove: fc.constantFrom(...TOPICS) }) },
  { weight: 1, arbitrary: fc.constant('reopen' as const) },
);
const limits = fc.constantFrom<Partial<RetentionLimits>>(
  {},
  { maxAge: 2_000 },
  { maxBytes: 15_000 },
  { topicMaxBytes: 6_000 },
  { maxAge: 3_000, maxBytes: 20_000, topicMaxBytes: 8_000 },
);
const dedup = fc.constantFrom<DedupWindow>(
  { ids: 0, milliseconds: 0 },
  { ids: 10, milliseconds: 60_000 },
  { ids: 1_000, milliseconds: 1_500 },
);

/** A commit that removes the record of an earlier one for two reasons: it is too old, and its topics are too large. */
const TWICE: Step[] = [
  ...Array.from({ length: 6 }, () => ({ topic: 'a', events: 1, bytes: 0 })),
  ...[434, 1_936].map((bytes) => ({ topic: 'b', events: 1, bytes })),
  { topic: 'a', events: 1, bytes: 0 },
  { topic: 'b', events: 1, bytes: 242 },
  ...[1_819, 2_085, 2_214].map((bytes) => ({ topic: 'a', events: 1, bytes })),
  { topic: 'b', events: 1, bytes: 1_982 },
  ...[1_695, 1_885].map((bytes) => ({ topic: 'a', events: 1, bytes })),
  { topic: 'b', events: 1, bytes: 1_870 },
  { topic: 'a', events: 1, bytes: 1_778 },
  { topic: 'c', events: 1, bytes: 2_764 },
  { topic: 'a', events: 1, bytes: 867 },
];

it('the sum that a log stores is that of its tables, whatever is stored and removed: a copy is not taken for a damaged one', () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 20, maxLength: 120 }),
      limits,
      dedup,
      async (steps, limit, window) => {
        const directory = temporaryDirectory();
        let now = 1_000_000;
        const open = (): Promise<EventLog> =>
          openLmdbLog({
            directory,
            fsync: false,
            retention: { ...KEEP_ALL, ...limit },
            dedup: window,
            clock: testClock(() => now),
          });
        let log = await open();
        for (const [i, next] of steps.entries()) {
          if (typeof next === 'number') {
            now += next;
          } else if (next === 'reopen') {
            await log.close();
            log = await open();
          } else if ('remove' in next) {
            await log.removeTopic(next.remove);
          } else {
            const { topic, events, bytes } = next;
            const all = Array.from({ length: events }, (_, n) => ({
              topic,
              id: `${i} ${n}`,
              body: 'x'.repeat(bytes),
            }));
            await log.openWriter().append(checked(...all));
          }
        }
        await log.close();
        forgetLog(directory);
        log = await open();
        await log.close();
      },
    ),
    {
      numRuns: 40,
      examples: [
        [
          TWICE,
          { maxAge: 3_000, maxBytes: 20_000, topicMaxBytes: 8_000 },
          { ids: 0, milliseconds: 0 },
        ],
      ],
    },
  ));

it('that is so where records of commits go before all that was chosen with them', async () => {
  const directory = temporaryDirectory();
  let now = 1_000_000;
  const retention = { ...KEEP_ALL, maxAge: 1_000, topicMaxBytes: 1_000_000 };
  const clock = testClock(() => now);
  let log = await openLmdbLog({ directory, fsync: false, retention, clock });
  const writer = log.openWriter();
  // One commit removes 64 topics, and meanwhile retention looks at 128 records, round and round.
  for (let i = 0; i < 400; i++) await writer.append(checked({ topic: `t${i}` }));
  now += 10_000;
  for (let i = 0; i < 10; i++) await writer.append(checked({ topic: 'new' }));
  expect(log.topicCount).toBe(1);
  await log.close();
  forgetLog(directory);
  log = await openLmdbLog({ directory, fsync: false });
  await log.close();
});
