import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { temporaryDirectory } from '../support/service.js';

const SCRIPTS = ['prepare.mjs', 'start.mjs'];

/** A package of npm: fields of its package.json, and what its files contain. */
export interface Package {
  readonly fields?: object;
  readonly files?: Record<string, string>;
}

/** Makes a directory with the scripts of `npm start` and a package.json with these fields, of which nothing is installed. */
export function checkout(fields: object) {
  const root = temporaryDirectory();
  for (const name of ['scripts', 'node_modules', 'cache']) mkdirSync(join(root, name));
  for (const name of SCRIPTS)
    copyFileSync(
      fileURLToPath(new URL(`../../scripts/${name}`, import.meta.url)),
      join(root, 'scripts', name),
    );
  const packageJson = { name: 'feed', version: '0.1.0', ...fields };
  const lock = JSON.stringify({
    ...packageJson,
    lockfileVersion: 3,
    packages: { '': packageJson },
  });
  writeFileSync(join(root, 'package.json'), JSON.stringify(packageJson));
  writeFileSync(join(root, 'package-lock.json'), lock);
  /** What npm needs, which here asks no registry. */
  const env: Record<string, string> = {
    PATH: process.env.PATH!,
    npm_config_cache: join(root, 'cache'),
    npm_config_offline: 'true',
  };
  return { root, lock, env };
}

/** Packs a package as npm would, as `<name>.tgz` in a directory. */
export function pack(directory: string, name: string, { fields, files = {} }: Package): void {
  const source = join(directory, `${name}-source`);
  mkdirSync(join(source, 'package'), { recursive: true });
  const all = { 'package.json': JSON.stringify({ name, version: '1.0.0', ...fields }), ...files };
  for (const [file, content] of Object.entries(all)) {
    writeFileSync(join(source, 'package', file), content);
    chmodSync(join(source, 'package', file), 0o755);
  }
  const tar = ['-czf', join(directory, `${name}.tgz`), '-C', source, 'package'];
  const { status, stderr } = spawnSync('tar', tar, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`tar: ${stderr}`);
}
