// npm run check: everything about the code that needs no running of it.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { env, install, root } from './prepare.mjs';

install();
const generated = mkdtempSync(join(tmpdir(), 'feed-gen-'));
const steps = [
  ['format', 'prettier', '--check', '--log-level=warn', '.'],
  ['lint', 'oxlint', '--type-aware', '--quiet'],
  ['types', 'tsc', '--noEmit', '-p', 'tsconfig.json'],
  ["the client's types", 'tsc', '--noEmit', '-p', 'client/tsconfig.json'],
  ["the console's types", 'tsc', '--noEmit', '-p', 'console/tsconfig.json'],
  [
    'import arrows',
    'depcruise',
    'src',
    'client/src',
    'console/src',
    '--config',
    '.dependency-cruiser.cjs',
    '--output-type',
    'err',
  ],
  ['proto lint', 'buf', 'lint'],
  ['proto breaking changes', 'buf', 'breaking', '--against', 'proto/released.binpb'],
  ['proto output', 'node', 'scripts/proto.mjs', generated],
  [
    'proto types are up to date (npm run proto)',
    'diff',
    '-r',
    join(generated, 'src', 'gen'),
    'src/gen',
  ],
  [
    "the client's messages are up to date (npm run proto)",
    'diff',
    '-r',
    join(generated, 'client', 'src', 'gen'),
    'client/src/gen',
  ],
  [
    'proto descriptors are up to date',
    'cmp',
    join(generated, 'proto', 'descriptors.binpb'),
    'proto/descriptors.binpb',
  ],
  ["the chart's table of values", 'node', 'scripts/chart-values.mjs', '--check'],
  ['mutants can be put in', 'node', 'scripts/mutants.mjs', '--check'],
  ['the list of what the service runs with (npm run sbom)', 'node', 'scripts/sbom.mjs', '--check'],
  ['build', 'node', 'scripts/run.mjs', 'build'],
  ["the client's package", 'publint', '--strict', 'client'],
  ["the client's types for its users", 'attw', '--pack', 'client', '--profile', 'esm-only'],
];

let failed = 0;
for (const [name, command, ...args] of steps) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    env,
    encoding: 'utf8',
  });
  process.stdout.write(`${status === 0 ? 'ok    ' : 'FAILED'} ${name}\n`);
  if (status === 0) continue;
  failed++;
  process.stdout.write(
    `${error?.message ?? ''}${stdout ?? ''}${stderr ?? ''}\n(${[command, ...args].join(' ')})\n\n`,
  );
}
rmSync(generated, { recursive: true });
process.exit(failed === 0 ? 0 : 1);
