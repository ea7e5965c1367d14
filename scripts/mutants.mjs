// node scripts/mutants.mjs [part of a name | --check]: puts one-line faults into a copy of the service, one at a time, and
// runs the tests that should notice. A mutant that survives is a promise that no test holds. With --check it only
// looks whether each can be put in.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mutants } from '../test/mutants/mutants.mjs';
import { env, install, root } from './prepare.mjs';

for (const { name, file, from } of mutants) {
  if (readFileSync(join(root, file), 'utf8').split(from).length !== 2)
    throw new Error(`${name}: ${file} does not have this once: ${from}`);
}
if (process.argv[2] === '--check') process.exit(0);

install();
const copy = mkdtempSync(join(tmpdir(), 'feed-mutants-'));
for (const part of [
  'src',
  'test',
  'proto',
  'scripts',
  'README.md',
  'package.json',
  'tsconfig.json',
  'tsconfig.build.json',
  'nest-cli.json',
  'vitest.config.ts',
]) {
  cpSync(join(root, part), join(copy, part), { recursive: true });
}
symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));

function run(command, args) {
  return spawnSync(command, args, { cwd: copy, env, encoding: 'utf8', timeout: 300_000 });
}

const chosen = mutants.filter(({ name }) => name.includes(process.argv[2] ?? ''));
let survivors = 0;
for (const { name, file, from, to, tests } of chosen) {
  const path = join(copy, file);
  const original = readFileSync(path, 'utf8');
  writeFileSync(
    path,
    original.replace(from, () => to),
  );
  const needsBuild = tests.some((test) => /life|faults/.test(test));
  const built = needsBuild ? run('nest', ['build']) : { status: 0 };
  if (built.status !== 0) throw new Error(`${name}: it does not compile: ${built.stderr}`);
  const {
    status,
    stdout = '',
    stderr = '',
  } = run('vitest', ['run', '--bail=1', '--testTimeout=10000', '--no-color', ...tests]);
  writeFileSync(path, original);
  const red =
    /FAIL\s+(.*)/.exec(stdout)?.[1] ??
    /(Unhandled|Error:.*)/.exec(stdout + stderr)?.[1] ??
    'no answer in time';
  process.stdout.write(
    status === 0 ? `SURVIVED  ${name}\n` : `caught    ${name}\n          by ${red}\n`,
  );
  if (status === 0) survivors++;
}
rmSync(copy, { recursive: true, force: true });
process.stdout.write(`${chosen.length - survivors} of ${chosen.length} caught\n`);
process.exit(survivors === 0 ? 0 : 1);
