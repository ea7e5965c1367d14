import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { temporaryDirectory } from '../support/service.js';

const PREPARE = fileURLToPath(new URL('../../scripts/prepare.mjs', import.meta.url));

/** A checkout that depends on `dependencies`, whose install by `npm start` said that it was complete. */
function checkout(dependencies: Record<string, string>) {
  const root = temporaryDirectory();
  for (const name of ['scripts', 'node_modules', 'cache']) mkdirSync(join(root, name));
  copyFileSync(PREPARE, join(root, 'scripts', 'prepare.mjs'));
  const packageJson = { name: 'feed', version: '0.1.0', dependencies };
  const lock = { ...packageJson, lockfileVersion: 3, packages: { '': packageJson } };
  writeFileSync(join(root, 'package.json'), JSON.stringify(packageJson));
  writeFileSync(join(root, 'package-lock.json'), JSON.stringify(lock));
  const marker = join(root, 'node_modules', '.installed');
  writeFileSync(marker, createHash('sha256').update(JSON.stringify(lock)).digest('hex'));
  const install = () =>
    spawnSync(
      process.execPath,
      ['--eval', "import('./scripts/prepare.mjs').then(({ install }) => install())"],
      {
        cwd: root,
        encoding: 'utf8',
        env: {
          PATH: process.env.PATH,
          npm_config_cache: join(root, 'cache'),
          npm_config_offline: 'true',
        },
      },
    );
  return { marker, install };
}

test('an install that npm took for complete, but is not, is said in a sentence and tried again', () => {
  const { marker, install } = checkout({});
  for (let i = 0; i < 2; i++) {
    const { status, stdout, stderr } = install();
    expect(status).toBe(1);
    expect(stdout).toContain('Installing dependencies');
    expect(stderr).toMatch(
      /^After npm install, node_modules\/\.bin\/node is missing.*Remove node_modules.*\n$/,
    );
    expect(existsSync(marker)).toBe(false);
  }
});

test('an install that npm gave up is not taken for complete', () => {
  const { marker, install } = checkout({ prettier: '3.10.1' });
  const { status, stderr } = install();
  expect(status).toBe(1);
  expect(stderr).toContain('ENOTCACHED');
  expect(stderr).not.toContain('prepare.mjs');
  expect(existsSync(marker)).toBe(false);
});
