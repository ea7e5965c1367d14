// What `npm start` and `npm test` need before they can run: plain JavaScript for any node since 20, because
// the machine's own node may be older than the project's, which is one of its dependencies.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const binaries = join(root, 'node_modules', '.bin');
export const node = join(binaries, 'node');

/** The environment of the project's own programs: its node comes first. */
export const env = { ...process.env, PATH: `${binaries}:${process.env.PATH}` };

/** Runs a program to its end; ends this process if it fails. */
export function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, env, stdio: 'inherit' });
  if (error) throw error;
  if (status !== 0) process.exit(status ?? 1);
}

/** Installs the dependencies of package-lock.json, unless they are installed. */
export function install() {
  const done = join(root, 'node_modules', '.installed');
  const wanted = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
  if (existsSync(done) && readFileSync(done, 'utf8') === wanted) return;
  process.stdout.write('Installing dependencies (once) ...\n');
  // Not `npm ci`: it refuses a lock file that lacks some platforms' binaries, which npm adds here as needed.
  run('npm', ['install', '--no-save', '--no-fund', '--no-audit', '--loglevel=error']);
  writeFileSync(done, wanted);
}

/** Builds dist/ unless it is newer than all that it is made of. */
export function build() {
  const done = join(root, 'dist', 'main.js');
  const sources = [
    'src',
    'proto',
    'package-lock.json',
    'tsconfig.json',
    'tsconfig.build.json',
    'nest-cli.json',
  ];
  if (
    existsSync(done) &&
    sources.every((source) => newest(join(root, source)) < statSync(done).mtimeMs)
  )
    return;
  process.stdout.write('Building ...\n');
  run('nest', ['build']);
}

function newest(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))));
}
