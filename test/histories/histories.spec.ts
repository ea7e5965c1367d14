import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import { forgetLog } from '../contract/checked-lmdb.js';
import { engineForTests, NATS_SERVER } from '../support/nats.js';
import { temporaryDirectory } from '../support/service.js';
import { within } from '../support/wait.js';
import { type History, watchers } from './history.js';
import { plans, servicePlanOf } from './plan.js';
import { RestartedReplicas, RestartedService, type ServiceUnderTest } from './restarted-service.js';
import { run } from './run.js';
import { validators } from './validators.js';

/** How many histories run at the same time, on one service. */
const AT_ONCE = Number(process.env.FEED_TEST_AT_ONCE ?? 40);
const COUNT = Number(process.env.FEED_TEST_HISTORIES ?? 2 * AT_ONCE);
const SEED = Number(process.env.FEED_TEST_SEED ?? Math.floor(Math.random() * 1e9));
/** The longest time (milliseconds) of a history. One that takes longer has a watch that waits for an event in vain. */
const PATIENCE = 180_000;

const groups = Array.from({ length: Math.ceil(COUNT / AT_ONCE) }, (_, i) => SEED + i);

const happened = {
  restarts: 0,
  kills: 0,
  'broken uploads': 0,
  duplicates: 0,
  gaps: 0,
  heartbeats: 0,
  'watches since a time': 0,
  'watches after a cursor from elsewhere': 0,
};

for (const seed of groups)
  test(
    `random histories keep every promise through restarts and kills (${replay(seed)})`,
    { timeout: 3 * PATIENCE },
    async () => {
      const directory = temporaryDirectory();
      await runHistories(
        seed,
        (settings) => new RestartedService({ FEED_DATA_DIR: directory, ...settings }),
        false,
      );
      forgetLog(directory);
      await (await openLmdbLog({ directory, fsync: false })).close();
    },
  );

describe.skipIf(!NATS_SERVER)('on jetstream', () => {
  const { settings } = engineForTests();
  for (const seed of groups)
    test(
      `random histories keep every promise over two replicas (${replay(seed)})`,
      { timeout: 3 * PATIENCE },
      () =>
        runHistories(
          seed,
          (more) => new RestartedReplicas(2, { ...settings('jetstream'), ...more }),
          true,
        ),
    );
});

async function runHistories(
  seed: number,
  start: (settings: Record<string, string>) => ServiceUnderTest,
  isReplicated: boolean,
): Promise<void> {
  const servicePlan = servicePlanOf(seed);
  const service = start({ FEED_DRAIN_TIMEOUT: '300ms', ...servicePlan.settings });
  await service.client('first');
  const lastRestart = service.restartAsPlanned(servicePlan);
  const retention = Object.keys(servicePlan.settings).length > 0;
  const running = plans(seed, AT_ONCE).map((plan, i) =>
    within(
      run(plan, `h${i}`, service, lastRestart, { retention, isReplicated }),
      `the end of history ${i}`,
      PATIENCE,
    ),
  );
  const histories = await Promise.all(running);
  expect(await service.end()).toEqual({ code: 0, signal: null });
  for (const history of histories) check(history);
  happened.restarts += service.restarts;
  happened.kills += service.kills;
  console.log(report(seed, histories, service.restarts));
}

// What happens in none of the histories is not tested by them.
test.skipIf(groups.length < 2)('each kind of event happened in some history', () => {
  console.log('in all:', happened);
  expect(Object.entries(happened).filter(([, times]) => times === 0)).toEqual([]);
});

/** Returns the command that runs the histories of a seed again. */
function replay(seed: number): string {
  return `FEED_TEST_SEED=${seed} FEED_TEST_HISTORIES=${AT_ONCE} FEED_TEST_AT_ONCE=${AT_ONCE} npm test -- test/histories/histories.spec.ts`;
}

function check(history: History): void {
  const breaches = Object.entries(validators).flatMap(([promise, validate]) =>
    validate(history).map((breach) => `not ${promise}: ${breach}`),
  );
  if (breaches.length === 0) return;
  const file = join(mkdtempSync(join(tmpdir(), 'feed-history-')), 'history.json');
  writeFileSync(file, JSON.stringify(history));
  throw new Error(
    `${breaches.slice(0, 10).join('\n')}\n${breaches.length} breaches; the history is in ${file}`,
  );
}

function report(seed: number, histories: readonly History[], restarts: number): string {
  const uploads = histories.flatMap((history) => history.uploads);
  const watches = histories.flatMap((history) => history.watches);
  const seen = watches.flatMap((watch) => watch.seen);
  const broken = uploads.filter(({ result }) => result.is !== 'stored').length;
  const gaps = watches.filter(({ refusal }) => refusal).length;
  happened['broken uploads'] += broken;
  happened.gaps += gaps;
  happened.duplicates += uploads.filter(
    ({ result }) => result.is === 'stored' && result.duplicates > 0,
  ).length;
  happened.heartbeats += seen.filter(({ id }) => id === '').length;
  happened['watches since a time'] += watches.filter(
    (watch) => watch.start.is === 'since' && watch.seen.length > 0,
  ).length;
  happened['watches after a cursor from elsewhere'] += histories
    .flatMap(watchers)
    .filter(([first]) => first.start.is === 'after').length;
  return `seed ${seed}: ${histories.length} histories, ${restarts} restarts, ${uploads.length} uploads (${broken} broken), ${watches.length} watches (${gaps} gaps), ${seen.length} deliveries`;
}
