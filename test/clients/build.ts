import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  globSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { setPriority } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command, Language } from './languages.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const cache = join(root, 'node_modules', '.cache', 'clients');

/** How long (milliseconds) the downloads of a language may take before its tests are skipped. */
const DOWNLOAD_TIMEOUT = 180_000;
/** How long (milliseconds) one command of a build may take. Other tests have the processors first. */
const BUILD_TIMEOUT = 300_000;

/** The longest time that build() takes, in milliseconds. */
export const LONGEST_BUILD = DOWNLOAD_TIMEOUT + 2 * BUILD_TIMEOUT;

export interface Program {
  /** The directory to run it in. */
  readonly directory: string;
  /** The command that runs it; its arguments follow. */
  readonly command: Command;
  readonly env: NodeJS.ProcessEnv;
}

/** Why there is no program: a tool is not installed, or packages could not be fetched. */
export interface Missing {
  readonly missing: string;
}

/**
 * Builds the program of a language in node_modules/.cache/clients, from a copy of its sources and of the contract. It is
 * built again only when its sources, the contract, the commands or the tools have changed.
 *
 * @throws when the program can't be generated or compiled
 */
export async function build(language: Language): Promise<Program | Missing> {
  const { name, tools, download, run, settings } = language;
  const env = { ...ENVIRONMENT, ...settings };
  const key = createHash('sha256').update(JSON.stringify(language));
  for (const tool of tools) {
    const [file, ...args] = tool.split(' ');
    const { status, stdout, stderr } = spawnSync(file, args, { env, encoding: 'utf8' });
    if (status !== 0) return { missing: `\`${tool}\` does not work here` };
    key.update(stdout + stderr);
  }
  const home = join('examples', 'clients', name);
  const files = [
    'buf.yaml',
    // All of the contract, as in a checkout: the commands choose what they generate code from.
    ...globSync('proto/**/*.proto', { cwd: root }).toSorted(),
    ...language.sources.map((source) => join(home, source)),
  ];
  for (const file of files) key.update(readFileSync(join(root, file)));

  const built = join(cache, `${name}-${key.digest('hex').slice(0, 16)}`);
  const program = { directory: join(built, home), command: run, env };
  if (existsSync(built)) return program;

  // Built beside its place and moved there when it is complete, because the tests may be interrupted.
  const scratch = join(cache, `building-${name}-${process.pid}`);
  try {
    for (const file of files) cpSync(join(root, file), join(scratch, file));
    const unfetched = await failureOf(download, join(scratch, home), ENVIRONMENT, DOWNLOAD_TIMEOUT);
    if (unfetched) return { missing: `its packages can't be fetched: ${unfetched}` };
    for (const command of language.build) {
      const failure = await failureOf(command, join(scratch, home), env, BUILD_TIMEOUT);
      if (failure) throw new Error(`examples/clients/${name} can't be built: ${failure}`);
    }
    removeOlder(name);
    renameSync(scratch, built);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return program;
}

/** Removes what was built of other sources, or by a run that was interrupted. */
function removeOlder(name: string): void {
  const isOlder = (entry: string): boolean =>
    entry.startsWith(`${name}-`) ||
    (entry.startsWith(`building-${name}-`) && !entry.endsWith(`-${process.pid}`));
  for (const entry of readdirSync(cache).filter(isOlder))
    rmSync(join(cache, entry), { recursive: true, force: true });
}

/** The variables of this process, with the project's own programs first on the path. */
const ENVIRONMENT = {
  ...process.env,
  PATH: [join(root, 'node_modules', '.bin'), process.env.PATH].join(delimiter),
};

/** Runs a command. Returns undefined when it succeeds, else the command and the end of what it wrote. */
function failureOf(
  command: Command,
  cwd: string,
  env: NodeJS.ProcessEnv,
  timeout: number,
): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  // A process group of its own, because mvn and go start processes that would outlive them.
  const [file, ...args] = command.split(' ');
  const child = spawn(file, args, {
    cwd,
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const { pid } = child;
  let output = '';
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    if (pid) process.kill(-pid, 'SIGKILL');
  }, timeout);
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  const settle = (why: string | undefined): void => {
    clearTimeout(timer);
    const text = [why, command, output.slice(-2_000)].join('\n');
    resolve(why === undefined ? undefined : text);
  };
  child.on('error', ({ message }) => settle(message));
  child.on('close', (code, signal) => {
    if (isLate) settle(`it took more than ${timeout / 1000} s`);
    else settle(code === 0 ? undefined : `it ended with ${code ?? signal}`);
  });
  // Tests that run at the same time have the processors first.
  if (pid) setPriority(pid, 10);
  return promise;
}
