// npm run sbom: writes a software bill of materials (CycloneDX, JSON) of what the service runs with to standard output, out of
// package-lock.json. With --check, it only looks whether that can be made and is complete. Plain JavaScript for any node since
// 20.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './prepare.mjs';

/**
 * @typedef {object} Component
 * @property {string} bom-ref
 * @property {string} name
 * @property {string} version
 * @property {unknown[]} [hashes]
 */

/**
 * @typedef {object} Bom
 * @property {{ component: Component }} metadata
 * @property {Component[]} components
 * @property {{ ref: string, dependsOn: string[] }[]} dependencies
 */

/**
 * @param {string} problem
 * @returns {never}
 */
function fail(problem) {
  process.stderr.write(`${problem}\n`);
  process.exit(1);
}

/** @type {{ name: string, dependencies: Record<string, string> }} */
const { name, dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const wanted = Object.entries(dependencies).map(([one, version]) => `${one}@${version}`);

/**
 * Makes the list of all packages of the lock file. npm's own --omit=dev leaves most packages of the service out as well (npm
 * 11.19), so what the service does not need is left out below.
 *
 * @returns {Bom}
 */
function listAll() {
  const args = [
    'sbom',
    '--sbom-format=cyclonedx',
    '--sbom-type=application',
    '--package-lock-only',
  ];
  const { status, stdout, stderr, error } = spawnSync('npm', args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  if (status !== 0) fail(`npm sbom failed: ${error?.message ?? stderr}`);
  return JSON.parse(stdout);
}

const bom = listAll();
const dependsOn = new Map(bom.dependencies.map(({ ref, dependsOn: refs }) => [ref, refs]));

/** What the service needs, and what that needs in turn. */
const needed = new Set(wanted);
for (const ref of needed) for (const next of dependsOn.get(ref) ?? []) needed.add(next);

bom.components = bom.components.filter((component) => needed.has(component['bom-ref']));
const own = bom.metadata.component;
own.name = name; // npm takes the name of the directory.
bom.dependencies = [
  { ref: own['bom-ref'], dependsOn: wanted },
  ...bom.dependencies.filter(({ ref }) => needed.has(ref)),
];

const listed = new Set(bom.components.map((component) => component['bom-ref']));
const missing = [...needed].filter((ref) => !listed.has(ref));
if (missing.length > 0) fail(`npm sbom does not list ${missing.join(', ')}`);
const bare = bom.components.filter(({ hashes = [] }) => hashes.length === 0);
if (bare.length > 0) fail(`no hash: ${bare.map((component) => component['bom-ref']).join(', ')}`);

if (!process.argv.includes('--check')) process.stdout.write(`${JSON.stringify(bom, null, 2)}\n`);
