// npm run mutants -- [part of a name]... | --check: puts one-line faults into a copy of the service, one at a time, and runs the
// tests that should notice, which must pass without it. A mutant that survives is a promise that no test holds. With
// --check it only looks whether each can be put in.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import ts from 'typescript';
import { mutants } from '../test/mutants/mutants.mjs';
import { mutate } from '../test/mutants/place.mjs';
import { env, root } from './prepare.mjs';

const misplaced = mutants.flatMap((mutant) => {
  try {
    mutate(readFileSync(join(root, mutant.file), 'utf8'), mutant);
    return [];
  } catch (error) {
    return [String(error)];
  }
});
if (misplaced.length > 0) throw new Error(misplaced.join('\n'));
if (process.argv[2] === '--check') process.exit(0);

const [, , ...parts] = process.argv;
const chosen = mutants.filter(
  ({ name }) => parts.length === 0 || parts.some((part) => name.includes(part)),
);
if (chosen.length === 0) throw new Error(`no mutant has this in its name: ${parts.join(', ')}`);

const copy = mkdtempSync(join(tmpdir(), 'feed-mutants-'));
// Some tests start the service as another user.
chmodSync(copy, 0o755);
process.on('exit', () => rmSync(copy, { recursive: true, force: true }));
const NOT_COPIED = ['node_modules', 'dist', '.git', 'data', 'coverage'];
cpSync(root, copy, {
  recursive: true,
  filter: (path) => !NOT_COPIED.includes(relative(root, path)),
});
symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));

/**
 * @param {string} command
 * @param {readonly string[]} args
 */
function run(command, args) {
  return spawnSync(command, args, { cwd: copy, env, encoding: 'utf8', timeout: 300_000 });
}

/**
 * Runs tests.
 *
 * @param {readonly string[]} tests
 */
function test(tests) {
  if (tests.some((part) => part.startsWith('test/console'))) {
    const { status, stdout, stderr } = run('vite', ['build', 'console']);
    if (status !== 0) throw new Error(`the console can't be built: ${stdout}${stderr}`);
  }
  const args = ['run', '--bail=1', '--no-color', ...tests];
  const { status, stdout, stderr } = run('vitest', args);
  const output = stdout + stderr;
  // If the file can't be loaded, there are no tests; if no test has the name, all are skipped.
  const [, counts = ''] = /^ *Tests +(\d.*)$/m.exec(stdout) ?? [];
  if (status !== null && counts === '') throw new Error(`no test can be run: ${output}`);
  const [, red] = /FAIL +(.*)/.exec(output) ??
    /(Unhandled.*|Error:.*)/.exec(output) ?? ['', 'no answer in time'];
  return { isGreen: status === 0, counts, red };
}

const built = run('nest', ['build']);
if (built.status !== 0) throw new Error(`it does not compile: ${built.stdout}${built.stderr}`);

/** Why a list of tests catches nothing, for each that was run without a mutant: it is red, or not there. */
const baselines = new Map();
/** @param {readonly string[]} tests */
function baseline(tests) {
  const list = tests.join(' ');
  if (!baselines.has(list)) {
    const { isGreen, counts, red } = test(tests);
    const problem = !isGreen
      ? `without a mutant, ${list} is not green: ${red}`
      : counts.includes('passed')
        ? undefined
        : `${list}: no test was run: ${counts}`;
    baselines.set(list, problem);
    if (problem === undefined) process.stdout.write(`green      ${list}: ${counts}\n`);
  }
  const problem = baselines.get(list);
  if (problem !== undefined) throw new Error(problem);
}

/**
 * The folders of compiled sources. Tests that start the service or `feed` run the compiled files.
 *
 * @type {readonly { from: string, to: string, options: ts.CompilerOptions }[]}
 */
const compiled = [
  { from: 'src/', to: 'dist', options: optionsOf('tsconfig.build.json') },
  { from: 'client/src/', to: 'client/dist', options: optionsOf('client/tsconfig.json') },
];

/** @param {string} name */
function optionsOf(name) {
  const path = join(root, name);
  const { config } = ts.readConfigFile(path, (file) => readFileSync(file, 'utf8'));
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, dirname(path));
  // A file by itself does not show that its package has ES modules.
  return { ...options, module: ts.ModuleKind.ESNext };
}

/**
 * Writes a source of the copy, and what the compiler makes of it. All of it compiled anew would take longer than most tests.
 *
 * @param {string} file
 * @param {string} text
 */
function put(file, text) {
  writeFileSync(join(copy, file), text);
  const part = compiled.find(({ from }) => file.startsWith(from));
  if (!part) return;
  const { outputText } = ts.transpileModule(text, {
    compilerOptions: part.options,
    fileName: file,
  });
  const made = relative(part.from, file).replace(/\.tsx?$/, '.js');
  writeFileSync(join(copy, part.to, made), outputText);
}

/** Puts one mutant in, runs its tests, and takes it out. @param {import('../test/mutants/place.mjs').Mutant} mutant */
function verdict(mutant) {
  baseline(mutant.tests);
  const original = readFileSync(join(copy, mutant.file), 'utf8');
  put(mutant.file, mutate(original, mutant));
  try {
    return test(mutant.tests);
  } finally {
    put(mutant.file, original);
  }
}

const tally = { caught: 0, survived: 0, none: 0 };
for (const [i, mutant] of chosen.entries()) {
  const which = `${mutant.name} (${i + 1} of ${chosen.length})`;
  try {
    const { isGreen, red } = verdict(mutant);
    tally[isGreen ? 'survived' : 'caught']++;
    process.stdout.write(
      isGreen ? `SURVIVED   ${which}\n` : `caught     ${which}\n           by ${red}\n`,
    );
  } catch (error) {
    // Its tests are red without it: the others still get theirs.
    tally.none++;
    process.stdout.write(`NO VERDICT ${which}\n           ${String(error)}\n`);
  }
}
process.stdout.write(
  `${tally.caught} of ${chosen.length} caught, ${tally.survived} survived, ${tally.none} without a verdict\n`,
);
process.exit(tally.caught === chosen.length ? 0 : 1);
