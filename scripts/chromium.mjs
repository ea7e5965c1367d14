// Finds Chromium for tests: the one that CHROMIUM (a path) or the PATH has, else the one of the package @sparticuz/chromium, which
// is unpacked into node_modules/.cache.
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { root } from './prepare.mjs';

const PACKAGE = join(root, 'node_modules', '@sparticuz', 'chromium');
const NAMES = ['chromium', 'chromium-browser', 'google-chrome'];

/**
 * @typedef {object} Chromium
 * @property {string} path
 * @property {Record<string, string>} env what it needs in its environment
 */

/**
 * Returns the path of the program, and unpacks it if there is none; or says why there is none.
 *
 * @returns {Chromium | { missing: string }}
 */
export function chromium() {
  const named = process.env.CHROMIUM;
  if (named) {
    const problem = problemOf(named);
    return problem ? { missing: `CHROMIUM=${named}: ${problem}` } : { path: named, env: {} };
  }
  const installed = NAMES.find((name) => problemOf(name) === undefined);
  if (installed) return { path: pathOf(installed), env: {} };
  const { version } = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8'));
  const directory = join(root, 'node_modules', '.cache', `chromium-${version}`);
  const packaged = { path: join(directory, 'chromium'), env: environment(directory) };
  const problem = unpack(directory) ?? problemOf(packaged.path, packaged.env);
  if (problem === undefined) return packaged;
  return {
    missing: `no Chromium is in CHROMIUM or in the PATH, and that of @sparticuz/chromium does not start: ${problem}`,
  };
}

/**
 * Unpacks the browser of the package, unless it is unpacked. Returns why it can't; undefined if it is there.
 *
 * @param {string} directory
 */
function unpack(directory) {
  if (existsSync(directory)) return undefined;
  mkdirSync(dirname(directory), { recursive: true });
  // Renamed when it is complete, because tests of several files look for it at the same time.
  const part = mkdtempSync(`${directory}-`);
  const problem = unpackInto(part);
  // Its fonts, beside those that the machine has.
  writeFileSync(
    join(part, 'fonts.conf'),
    `<fontconfig><include ignore_missing="yes">/etc/fonts/fonts.conf</include><dir>${directory}/fonts</dir></fontconfig>`,
  );
  if (problem === undefined && !existsSync(directory)) renameSync(part, directory);
  rmSync(part, { recursive: true, force: true });
  return problem;
}

/**
 * The package unpacks into the directory for temporary files, which is another one in a process of its own. Returns why it can't.
 *
 * @param {string} directory
 */
function unpackInto(directory) {
  const files = ['chromium.br', 'fonts.tar.br', 'swiftshader.tar.br', 'al2023.tar.br'];
  const script = `
    import { inflate } from '@sparticuz/chromium';
    for (const file of ${JSON.stringify(files)}) await inflate(${JSON.stringify(join(PACKAGE, 'bin'))} + '/' + file);
  `;
  const { status, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '--eval', script],
    { cwd: root, env: { ...process.env, TMPDIR: directory }, encoding: 'utf8' },
  );
  return status === 0 ? undefined : stderr.trim();
}

/**
 * Returns the environment of the browser that was unpacked into this directory. Libraries that a machine without a desktop may lack
 * came with it.
 *
 * @param {string} directory
 */
function environment(directory) {
  const libraries = [join(directory, 'al2023', 'lib'), process.env.LD_LIBRARY_PATH ?? ''];
  return {
    LD_LIBRARY_PATH: libraries.filter(Boolean).join(':'),
    FONTCONFIG_FILE: join(directory, 'fonts.conf'),
  };
}

/** @param {string} name */
function pathOf(name) {
  return spawnSync('which', [name], { encoding: 'utf8' }).stdout.trim();
}

/**
 * Returns why a program can't be used; undefined if it can.
 *
 * @param {string} path
 * @param {Record<string, string>} [env]
 */
function problemOf(path, env) {
  const { error, status, stderr } = spawnSync(path, ['--version'], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 60_000,
  });
  if (error) return error.message;
  return status === 0 ? undefined : stderr.trim();
}
