// Finds Prometheus and its promtool for tests: those that PROMETHEUS (a directory) or the PATH has, else
// those in node_modules/.cache, where Debian's package is unpacked.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './prepare.mjs';

const CACHE = join(root, 'node_modules', '.cache', 'prometheus');

/**
 * Returns the paths of both programs, and gets them if there are none; or says why there are none.
 *
 * @returns {{ prometheus: string, promtool: string } | { missing: string }}
 */
export function prometheus() {
  const named = process.env.PROMETHEUS;
  if (named) {
    const programs = programsIn(named);
    const problem = problemOf(programs.promtool);
    return problem ? { missing: `PROMETHEUS=${named}: ${problem}` } : programs;
  }
  if (problemOf('promtool') === undefined && problemOf('prometheus') === undefined)
    return { prometheus: 'prometheus', promtool: 'promtool' };
  const cached = programsIn(join(CACHE, 'usr', 'bin'));
  if (existsSync(cached.promtool)) return cached;
  mkdirSync(join(CACHE, '..'), { recursive: true });
  // Renamed when it is complete, because tests of several files look for it at the same time.
  const directory = mkdtempSync(`${CACHE}-`);
  const problem = unpackDebianPackage(directory);
  if (problem === undefined && !existsSync(CACHE)) renameSync(join(directory, 'unpacked'), CACHE);
  rmSync(directory, { recursive: true, force: true });
  if (existsSync(cached.promtool)) return cached;
  return {
    missing: `no promtool is in PROMETHEUS or in the PATH, and Debian's package can't be had: ${problem}`,
  };
}

/** @param {string} directory */
function programsIn(directory) {
  return { prometheus: join(directory, 'prometheus'), promtool: join(directory, 'promtool') };
}

/**
 * Unpacks the package into `unpacked`, without installing it. Returns why it can't; undefined if it has.
 *
 * @param {string} directory
 */
function unpackDebianPackage(directory) {
  // apt's lists and cache are in there too, so that it needs no rights and changes nothing of the machine.
  for (const name of ['lists/partial', 'cache/archives/partial'])
    mkdirSync(join(directory, name), { recursive: true });
  const apt = [
    '--quiet',
    '-o',
    `Dir::State::Lists=${join(directory, 'lists')}`,
    '-o',
    `Dir::Cache=${join(directory, 'cache')}`,
    '-o',
    'APT::Sandbox::User=root',
  ];
  const problem =
    problemWith(directory, 'apt-get', ...apt, 'update') ??
    problemWith(directory, 'apt-get', ...apt, 'download', 'prometheus');
  if (problem !== undefined) return problem;
  const file = readdirSync(directory).find((name) => name.endsWith('.deb'));
  return file === undefined
    ? 'apt-get has put no package there'
    : problemWith(directory, 'dpkg-deb', '--extract', file, 'unpacked');
}

/**
 * Runs a program. Returns why it failed; undefined if it has not.
 *
 * @param {string} cwd
 * @param {string} program
 * @param {readonly string[]} args
 */
function problemWith(cwd, program, ...args) {
  const { error, status, stderr } = spawnSync(program, args, {
    cwd,
    encoding: 'utf8',
    timeout: 180_000,
  });
  if (error) return error.message;
  return status === 0 ? undefined : stderr.trim().split('\n').slice(-4).join(' | ');
}

/**
 * Returns why a program can't be used; undefined if it can.
 *
 * @param {string} path
 */
function problemOf(path) {
  return spawnSync(path, ['--version'], { encoding: 'utf8' }).error?.message;
}
