import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkout, type Package } from './checkout.js';

/** A checkout whose install by `npm start` said that it was complete. */
function installed(fields: object, packages?: Record<string, Package>) {
  const { root, env } = checkout(fields, packages);
  const lock = readFileSync(join(root, 'package-lock.json'));
  const marker = join(root, 'node_modules', '.installed');
  writeFileSync(marker, createHash('sha256').update(lock).digest('hex'));
  const install = (settings: Record<string, string> = {}) =>
    spawnSync(
      process.execPath,
      ['--eval', "import('./scripts/prepare.mjs').then(({ install }) => install())"],
      { cwd: root, encoding: 'utf8', env: { ...env, ...settings } },
    );
  return { root, marker, install };
}

test('an install that npm took for complete, but is not, is said in a sentence and tried again', () => {
  const { marker, install } = installed({});
  for (let i = 0; i < 2; i++) {
    const { status, stdout, stderr } = install();
    expect(status).toBe(1);
    expect(stdout).toContain('Installing dependencies');
    expect(stderr).toMatch(/^After npm ci, node_modules\/\.bin\/node is missing.*Try again.*\n$/);
    expect(existsSync(marker)).toBe(false);
  }
});

test('an install that npm gave up is not taken for complete', () => {
  const { root, marker, install } = installed(
    { dependencies: { lmdb: 'file:lmdb.tgz' } },
    { lmdb: {} },
  );
  for (const name of ['lmdb.tgz', 'cache']) rmSync(join(root, name), { recursive: true });
  const { status, stderr } = install();
  expect(status).not.toBe(0);
  expect(stderr).toContain('ENOENT');
  expect(stderr).not.toContain('prepare.mjs');
  expect(existsSync(marker)).toBe(false);
});

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

/** Settings of npm by which it leaves something out. */
const LEAVES_OUT = `
  omit[]=dev
  omit[]=optional
  ignore-scripts=true
  bin-links=false
  package-lock-only=true
  global=true
`;

/** A script that must not run: it leaves a file in its package. */
const STRANGE = `node -e "require('node:fs').writeFileSync('ran', '')"`;

/** A checkout whose packages have what prepare.mjs looks for: programs, an install script, one that is optional. */
function complete() {
  const script = `require('node:fs').writeFileSync('index.js', '')`;
  const made = installed(
    {
      dependencies: { lmdb: 'file:lmdb.tgz', another: 'file:another.tgz' },
      optionalDependencies: { 'fs-native-extensions': 'file:fs-native-extensions.tgz' },
      devDependencies: { programs: 'file:programs.tgz' },
      allowScripts: { lmdb: true },
    },
    {
      lmdb: {
        fields: { scripts: { install: `node install.cjs` } },
        files: { 'install.cjs': script },
      },
      another: {
        fields: { scripts: { preinstall: STRANGE, install: STRANGE, postinstall: STRANGE } },
      },
      'fs-native-extensions': { files: { 'index.js': '' } },
      programs: {
        fields: { bin: Object.fromEntries(PROGRAMS.map((name) => [name, 'program'])) },
        files: { program: `#!/bin/sh\nexec ${process.execPath} "$@"\n` },
      },
    },
  );
  writeFileSync(join(made.root, 'user.npmrc'), LEAVES_OUT);
  return made;
}

test('an install is complete whatever NODE_ENV and the settings of npm leave out', () => {
  const { root, marker, install } = complete();
  const { status, stderr } = install({
    NODE_ENV: 'production',
    npm_config_userconfig: join(root, 'user.npmrc'),
    npm_config_prefix: join(root, 'global'),
    npm_config_dry_run: 'true',
    npm_config_install_strategy: 'linked',
  });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(existsSync(marker)).toBe(true);
  expect(existsSync(join(root, 'node_modules', 'another', 'ran'))).toBe(false);
});

test('an install of what the lock file does not have is refused', () => {
  const { root, marker, install } = complete();
  const packageJson = join(root, 'package.json');
  const fields = JSON.parse(readFileSync(packageJson, 'utf8'));
  fields.dependencies.unknown = 'file:lmdb.tgz';
  writeFileSync(packageJson, JSON.stringify(fields));
  rmSync(marker);
  const { status, stderr } = install();
  expect(status).toBe(1);
  expect(stderr).toContain('Missing: unknown');
  expect(existsSync(marker)).toBe(false);
});
