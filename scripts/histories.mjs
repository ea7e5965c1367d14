// node scripts/histories.mjs [count] [seed]: many random histories of uploads, watches, restarts and kills, each
// checked against every promise (test/histories). 10,000 take about 25 minutes. A failure's name is what replays it.
import { build, env, install, run } from './prepare.mjs';

const AT_ONCE = 100;
const [count = '10000', seed = String(Math.floor(Math.random() * 1e9))] = process.argv.slice(2);

install();
build();
Object.assign(env, {
  FEED_TEST_HISTORIES: count,
  FEED_TEST_AT_ONCE: String(AT_ONCE),
  FEED_TEST_SEED: seed,
});
run('vitest', ['run', '--bail=1', 'test/histories/histories.spec.ts']);
