// node scripts/run.mjs <name> [arguments]: installs what is missing, builds dist/ if the program needs it and it is stale,
// and runs one of the programs below. The npm scripts of package.json call it: `npm run <name> -- <arguments>`.
import { follow } from './follow.mjs';
import { build, env, install } from './prepare.mjs';

/**
 * @typedef {object} Program
 * @property {readonly [string, ...string[]]} [command] the program's name and its arguments; none only installs and builds
 * @property {boolean} [usesDist] the program starts the built service
 * @property {'always'} [builds] the service, the client and the console are built, even if they are up to date
 * @property {Record<string, string>} [settings] environment variables
 */

/** @type {Record<string, (...args: string[]) => Program>} */
const PROGRAMS = {
  // Installs and builds; `npm start` calls it before it runs the service.
  prepare: () => ({ usesDist: true }),

  // Builds the service, the client and the console, whether or not they are stale.
  build: () => ({ builds: 'always' }),

  // Runs the service and, whenever a file of src changes, builds and restarts it.
  dev: () => ({ command: ['nest', 'start', '--watch', '--preserveWatchOutput', '--no-shell'] }),

  // Serves the console's page on 127.0.0.1:5173, changed as its sources change, with the numbers of the server on 127.0.0.1:8080.
  'dev:console': () => ({ command: ['vite', 'console'] }),

  // Every test, or those whose file's path has an argument in it. Arguments go to vitest.
  test: (...args) => ({ command: ['vitest', 'run', ...args], usesDist: true }),

  // The faults of test/faults, or of its files that have the argument in their name, many more of each than `npm test` has.
  // Each set of streams says how long it took. FEED_TEST_SEED, which is printed, repeats what is random.
  faults: (part = '') => ({
    // One after another: they take what the machine has.
    command: ['vitest', 'run', '--no-file-parallelism', `test/faults/${part}`],
    usesDist: true,
    settings: {
      FEED_TEST_STREAMS: '1000',
      FEED_TEST_KILLS: '50',
      FEED_TEST_POWER_CUTS: '50',
      FEED_TEST_CUTS: '10000',
      FEED_TEST_SLOW_SECONDS: '600',
      FEED_TEST_SLOW_UPLOADS: '10',
      FEED_TEST_TEARS: '400',
      FEED_TEST_ROTATION_SECONDS: '60',
      FEED_TEST_NATS_RUNS: '50',
      FEED_TEST_NATS_CUT_SECONDS: '60',
      FEED_TEST_NATS_POWER_CUTS: '20',
      FEED_TEST_NATS_IDS: '100000',
      FEED_TEST_NATS_CURSORS: '10000',
      FEED_TEST_NATS_READS: '2000',
      FEED_TEST_NATS_MEMBERS: '1000',
      FEED_TEST_NATS_ROOMS: '10000',
      FEED_TEST_NATS_WATCHES: '200',
      FEED_TEST_NATS_UPLOADS: '20',
      FEED_TEST_NATS_LOG_BYTES: '5368709120',
    },
  }),

  // The client's test of kills and a network that breaks at random, with more kills than `npm test` has. FEED_TEST_SEED,
  // which is printed, repeats what is random.
  chaos: (kills = '20') => ({
    command: ['vitest', 'run', 'client/test/chaos.spec.ts'],
    usesDist: true,
    settings: { FEED_TEST_KILLS: kills },
  }),

  // Random histories of uploads, watches, restarts and kills, each checked against every promise (test/histories). The name
  // of one that fails is the command that replays it.
  histories: (count = '10000', seed = String(Math.floor(Math.random() * 1e9))) => ({
    command: ['vitest', 'run', '--bail=1', 'test/histories/histories.spec.ts'],
    usesDist: true,
    settings: {
      FEED_TEST_HISTORIES: count,
      FEED_TEST_AT_ONCE: '100',
      FEED_TEST_SEED: seed,
    },
  }),

  // Changed bytes for all that parses bytes from outside, so many seconds for each. Inputs that run new code, or break a
  // promise, are kept in test/fuzz/corpus.
  fuzz: (seconds = '300') => ({
    command: ['vitest', 'run', '--bail=1', 'test/fuzz'],
    settings: { FEED_TEST_FUZZ_SECONDS: seconds, FEED_TEST_FUZZ_KEEP: '1' },
  }),

  mutants: (...args) => ({ command: ['node', 'scripts/mutants.mjs', ...args] }),
  lint: (...args) => ({ command: ['oxlint', '--type-aware', ...args] }),
  format: () => ({ command: ['prettier', '--write', '.'] }),
  bench: (...args) => ({ command: ['node', 'bench/main.ts', ...args], usesDist: true }),
  'bench:growth': (...args) => ({ command: ['node', 'bench/growth.ts', ...args], usesDist: true }),
  // src/wire alone, from its TypeScript.
  'bench:wire': () => ({
    command: [
      'node',
      '--experimental-transform-types',
      '--disable-warning=ExperimentalWarning',
      '--import=./test/support/typescript-hooks.ts',
      'bench/wire.ts',
    ],
  }),
  'bench:upload-file': (...args) => ({
    command: ['node', 'bench/upload-file.ts', ...args],
    usesDist: true,
  }),
  // Three nats-servers and two replicas on them, to try several replicas.
  cluster: (...args) => ({ command: ['node', 'scripts/cluster.ts', ...args], usesDist: true }),
  picture: () => ({ command: ['node', 'scripts/picture.mjs'], usesDist: true }),
  // The pictures of the console in docs/images.
  'picture:console': () => ({
    command: ['vitest', 'run', 'test/console/pictures.spec.ts'],
    usesDist: true,
    settings: { FEED_TEST_PICTURES: '1' },
  }),
  // 20 minutes of a console's tail of 5,000 events a second.
  'busy-tail': (seconds = '1200') => ({
    command: ['vitest', 'run', 'test/console/busy-tail.spec.ts'],
    usesDist: true,
    settings: { FEED_TEST_TAIL_SECONDS: seconds },
  }),
  'example:log': (...args) => ({
    command: ['node', 'examples/log-file.ts', ...args],
    usesDist: true,
  }),
};

const [name, ...args] = process.argv.slice(2);
if (!Object.hasOwn(PROGRAMS, name ?? '')) {
  process.stderr.write(`node scripts/run.mjs ${Object.keys(PROGRAMS).join(' | ')}\n`);
  process.exit(1);
}
const { command, usesDist, builds, settings } = PROGRAMS[name](...args);
install();
if (usesDist || builds) build({ always: builds === 'always' });
if (command) {
  Object.assign(env, settings);
  const [program, ...rest] = command;
  process.exit(await follow(program, rest, ['SIGTERM', 'SIGINT', 'SIGHUP']));
}
