// node scripts/faults.mjs [part of a file's name]: the faults of test/faults, many more of each than `npm test` has: 1,000
// streams in each of nine sets for each ending, of which it says how long each set took, 50 kills, 50 power cuts, 400
// torn copies, 10,000 calls that are cut with much under way, and ten minutes of a watch over a slow link. What is random
// is repeated by FEED_TEST_SEED, which is printed. Takes 4 GB of memory and an hour.
import { build, env, install, run } from './prepare.mjs';

install();
build();
Object.assign(env, {
  FEED_TEST_STREAMS: '1000',
  FEED_TEST_KILLS: '50',
  FEED_TEST_POWER_CUTS: '50',
  FEED_TEST_CUTS: '10000',
  FEED_TEST_SLOW_SECONDS: '600',
  FEED_TEST_SLOW_UPLOADS: '10',
  FEED_TEST_TEARS: '400',
});
// One after another: they take what the machine has.
run('vitest', ['run', '--no-file-parallelism', `test/faults/${process.argv[2] ?? ''}`]);
