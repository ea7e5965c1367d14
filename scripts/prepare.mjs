// What `npm start` and `npm test` need before they can run: plain JavaScript for any node since 20, because
// the machine's own node may be older than the project's, which is one of its dependencies.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const binaries = join(root, 'node_modules', '.bin');
export const node = join(binaries, 'node');

/**
 * The environment of the project's own programs: its node comes first.
 *
 * @type {NodeJS.ProcessEnv}
 */
export const env = { ...process.env, PATH: `${binaries}:${process.env.PATH}` };

/**
 * Runs a program to its end; ends this process if it fails.
 *
 * @param {string} command
 * @param {readonly string[]} args
 */
export function run(command, args, environment = env) {
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    env: environment,
    stdio: 'inherit',
  });
  if (error) end(`${command} can't be run: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}

/**
 * @param {string} problem
 * @returns {never}
 */
function end(problem) {
  process.stderr.write(`${problem}\n`);
  process.exit(1);
}

/**
 * Settings of npm that decide what is installed, whatever the environment (NODE_ENV) or a user's npmrc say. The user's registry,
 * proxy, offline and min-release-age settings still apply.
 */
const COMPLETE = {
  include: ['dev', 'optional', 'peer'],
  'bin-links': true,
  'dry-run': false,
  'package-lock': true,
  'package-lock-only': false,
  'install-strategy': 'hoisted',
  'legacy-peer-deps': false,
  'engine-strict': false, // The machine's own node only installs.
  global: false,
  location: 'project',
  fund: false,
  audit: false,
  loglevel: 'error',
};

/**
 * Runs npm with COMPLETE: as arguments, and as environment for the npm that the install script of `node` runs.
 *
 * @param {readonly string[]} command
 * @param {boolean} runsScripts false: no package's install script is run
 */
function npm(command, runsScripts) {
  const args = [...command];
  const environment = { ...env };
  const settings = { ...COMPLETE, 'ignore-scripts': !runsScripts };
  for (const [key, value] of Object.entries(settings)) {
    const values = [value].flat();
    args.push(...values.map((one) => `--${key}=${one}`));
    environment[`npm_config_${key.replaceAll('-', '_')}`] = values.join('\n\n'); // npm's form of a list
  }
  run('npm', args, environment);
}

/** The programs that the project's commands run. */
const PROGRAMS = [
  'node',
  'nest',
  'vite',
  'vitest',
  'tsc',
  'prettier',
  'oxlint',
  'depcruise',
  'buf',
];
/** Packages of the service that an install script builds or downloads, or that come for this platform alone. */
const NATIVE = ['lmdb', 'fs-native-extensions'];

/**
 * Returns the installed packages whose install scripts are run: those that package.json allows. npm itself (11.19) runs those of
 * every package, whatever `allowScripts` says.
 *
 * @returns {string[]}
 */
function packagesWithScripts() {
  const { allowScripts = {} } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return Object.keys(allowScripts).filter(
    (name) => allowScripts[name] && existsSync(join(root, 'node_modules', name)),
  );
}

/** Installs the dependencies of package-lock.json, unless they are installed. */
export function install() {
  const done = join(root, 'node_modules', '.installed');
  const wanted = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
  const isDone = existsSync(done) && readFileSync(done, 'utf8') === wanted;
  if (isDone && missingPrograms().length === 0) return;
  process.stdout.write('Installing dependencies (once) ...\n');
  rmSync(done, { force: true });
  npm(['ci'], false);
  const names = packagesWithScripts();
  if (names.length > 0) npm(['rebuild', ...names], true);
  const problems = missing();
  if (problems.length > 0)
    end(
      `After npm ci, ${problems.join(', and ')}. Try again; \`npm ci --loglevel=verbose\` says more.`,
    );
  writeFileSync(done, wanted);
}

function missingPrograms() {
  return PROGRAMS.filter((name) => !existsSync(join(binaries, name))).map(
    (name) => `node_modules/.bin/${name} is missing`,
  );
}

/**
 * Returns a sentence for each missing part which the project's commands need.
 *
 * @returns {string[]}
 */
function missing() {
  const programs = missingPrograms();
  if (programs.length > 0) return programs;
  return NATIVE.flatMap((name) => {
    const { status, error, stderr } = spawnSync(node, ['--eval', `require('${name}')`], {
      cwd: root,
      env,
      encoding: 'utf8',
    });
    if (status === 0) return [];
    const why = error?.message ?? /^\w*Error: .*/m.exec(stderr)?.[0] ?? `it ended with ${status}`;
    return [`node_modules/.bin/node can't load ${name} (${why})`];
  });
}

/**
 * @typedef {object} Build
 * @property {string} made a file that is made last
 * @property {readonly string[]} sources
 * @property {readonly [string, ...string[]]} command
 */

/** @type {readonly Build[]} */
const BUILDS = [
  {
    made: 'dist/main.js',
    sources: [
      'src',
      'proto',
      'package-lock.json',
      'tsconfig.json',
      'tsconfig.build.json',
      'nest-cli.json',
    ],
    command: ['nest', 'build'],
  },
  {
    made: 'client/dist/index.js',
    sources: ['client/src', 'client/package.json', 'client/tsconfig.json', 'package-lock.json'],
    command: ['tsc', '-p', 'client/tsconfig.json'],
  },
  {
    made: 'console/dist/index.html',
    sources: [
      'console/src',
      'console/public',
      'console/index.html',
      'console/vite.config.ts',
      'console/package.json',
      'console/tsconfig.json',
      'package-lock.json',
    ],
    command: ['vite', 'build', 'console', '--logLevel=warn'],
  },
];

/** Builds the service, the client and the console, each unless it is newer than all that it is made of. */
export function build({ always = false } = {}) {
  for (const { made, sources, command } of BUILDS) {
    if (!always && isNewer(join(root, made), sources)) continue;
    process.stdout.write(`Building ${dirname(made)} ...\n`);
    rmSync(join(root, dirname(made)), { recursive: true, force: true }); // What was removed from the sources goes, too.
    const [program, ...args] = command;
    run(program, args);
  }
}

/**
 * @param {string} made
 * @param {readonly string[]} sources
 */
function isNewer(made, sources) {
  return (
    existsSync(made) &&
    sources.every((source) => newest(join(root, source)) < statSync(made).mtimeMs)
  );
}

/**
 * Returns when the file, or the newest file of the directory, was changed.
 *
 * @param {string} path
 * @returns {number}
 */
function newest(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))));
}
