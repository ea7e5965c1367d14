import { spawnSync, type SpawnSyncOptions } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { temporaryDirectory } from '../support/service.js';

const SCRIPTS = ['follow.mjs', 'prepare.mjs', 'run.mjs', 'start.mjs'];

/** A package of npm: fields of its package.json, and what its files contain. */
export interface Package {
  readonly fields?: object;
  readonly files?: Record<string, string>;
}

/**
 * Makes a directory with the scripts of `npm start`, a package.json with these fields and its lock file. Nothing is installed.
 *
 * @param packages packed into the directory, as `<name>.tgz`
 */
export function checkout(fields: object, packages: Record<string, Package> = {}) {
  const root = temporaryDirectory();
  for (const name of ['scripts', 'node_modules', 'cache']) mkdirSync(join(root, name));
  for (const name of SCRIPTS)
    copyFileSync(
      fileURLToPath(new URL(`../../scripts/${name}`, import.meta.url)),
      join(root, 'scripts', name),
    );
  const packageJson = { name: 'feed', version: '0.1.0', ...fields };
  writeFileSync(join(root, 'package.json'), JSON.stringify(packageJson));
  for (const [name, one] of Object.entries(packages)) pack(root, name, one);
  /** What npm needs, which here asks no registry. */
  const env: Record<string, string> = {
    PATH: process.env.PATH!,
    npm_config_cache: join(root, 'cache'),
    npm_config_offline: 'true',
  };
  run('npm', ['install', '--package-lock-only'], { cwd: root, env });
  return { root, env };
}

/** Packs a package as npm would, as `<name>.tgz` in a directory. */
function pack(directory: string, name: string, { fields, files = {} }: Package): void {
  const source = join(directory, `${name}-source`);
  mkdirSync(join(source, 'package'), { recursive: true });
  const all = { 'package.json': JSON.stringify({ name, version: '1.0.0', ...fields }), ...files };
  for (const [file, content] of Object.entries(all)) {
    writeFileSync(join(source, 'package', file), content);
    chmodSync(join(source, 'package', file), 0o755);
  }
  run('tar', ['-czf', join(directory, `${name}.tgz`), '-C', source, 'package'], {});
}

function run(command: string, args: readonly string[], options: SpawnSyncOptions): void {
  const { status, stderr } = spawnSync(command, args, { ...options, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command}: ${stderr}`);
}
