import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { temporaryDirectory } from '../support/service.js';
import type { History } from './history.js';
import { plans, weatherOf } from './plan.js';
import { run, within } from './run.js';
import { validators } from './validators.js';
import { World } from './world.js';

/** How many histories run at the same time, on one service. */
const AT_ONCE = Number(process.env.FEED_TEST_AT_ONCE ?? 40);
const COUNT = Number(process.env.FEED_TEST_HISTORIES ?? 2 * AT_ONCE);
const SEED = Number(process.env.FEED_TEST_SEED ?? Math.floor(Math.random() * 1e9));
const PATIENCE_SECONDS = 60;

const groups = Array.from({ length: Math.ceil(COUNT / AT_ONCE) }, (_, i) => SEED + i);

test.each(groups)(
  'random histories keep every promise through restarts and kills (FEED_TEST_SEED=%i)',
  { timeout: 3 * PATIENCE_SECONDS * 1_000 },
  async (seed) => {
    const weather = weatherOf(seed);
    const world = new World({
      FEED_DATA_DIR: temporaryDirectory(),
      FEED_DRAIN_TIMEOUT: '300ms',
      ...weather.settings,
    });
    await world.client('first');
    const calm = world.weather(weather);
    const retention = Object.keys(weather.settings).length > 0;
    const running = plans(seed, AT_ONCE).map((plan, i) =>
      within(PATIENCE_SECONDS, `history ${i}`, run(plan, `h${i}`, world, calm, retention)),
    );
    const histories = await Promise.all(running);
    expect(await world.end()).toEqual({ code: 0, signal: null });
    for (const history of histories) check(history, seed);
    console.log(report(seed, histories, world.restarts));
  },
);

function check(history: History, seed: number): void {
  const breaches = Object.entries(validators).flatMap(([promise, validate]) =>
    validate(history).map((breach) => `not ${promise}: ${breach}`),
  );
  if (breaches.length === 0) return;
  const file = join(mkdtempSync(join(tmpdir(), 'feed-history-')), 'history.json');
  writeFileSync(file, JSON.stringify(history));
  throw new Error(
    `${breaches.slice(0, 10).join('\n')}\n${breaches.length} breaches; FEED_TEST_SEED=${seed}; the history is in ${file}`,
  );
}

function report(seed: number, histories: readonly History[], restarts: number): string {
  const count = (of: (history: History) => number): number =>
    histories.reduce((sum, history) => sum + of(history), 0);
  const uploads = count((history) => history.uploads.length);
  const broken = count(
    ({ uploads: all }) => all.filter(({ result }) => result.is !== 'stored').length,
  );
  const watches = count((history) => history.watches.length);
  const gaps = count(({ watches: all }) => all.filter(({ refusal }) => refusal).length);
  const delivered = count(({ watches: all }) =>
    all.reduce((sum, { seen }) => sum + seen.length, 0),
  );
  return `seed ${seed}: ${histories.length} histories, ${restarts} restarts, ${uploads} uploads (${broken} broken), ${watches} watches (${gaps} gaps), ${delivered} deliveries`;
}
