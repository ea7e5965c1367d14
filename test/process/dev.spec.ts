import { appendFileSync, cpSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until } from '../support/wait.js';
import { processesWith } from './processes.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const COPIED = [
  'nest-cli.json',
  'package-lock.json',
  'package.json',
  'proto',
  'scripts',
  'src',
  'tsconfig.build.json',
  'tsconfig.json',
];

/** Two compilations take this long (milliseconds) at most on a busy machine. */
const COMPILE_TIMEOUT = 120_000;

/** Copies the service with what is installed for it. */
function copied(): string {
  const copy = temporaryDirectory();
  for (const name of COPIED) cpSync(join(ROOT, name), join(copy, name), { recursive: true });
  // A link to each package and not to all of node_modules, which an install would empty; and a cache of its own.
  mkdirSync(join(copy, 'node_modules'));
  const installed = readdirSync(join(ROOT, 'node_modules')).filter((name) => name !== '.cache');
  for (const name of installed)
    symlinkSync(join(ROOT, 'node_modules', name), join(copy, 'node_modules', name));
  return copy;
}

test(
  'npm run dev builds and restarts the service when a file of src changes; SIGTERM ends all of it',
  { timeout: 300_000 },
  async () => {
    const copy = copied();
    const data = join(copy, 'data');
    const service = ServiceProcess.shell(`exec node ${join(copy, 'scripts', 'run.mjs')} dev`, {
      FEED_DATA_DIR: data,
    });
    const all = () => processesWith(`FEED_DATA_DIR=${data}`);
    onTestFinished(() => all().forEach((pid) => process.kill(pid, 'SIGKILL')));
    await service.ready();
    appendFileSync(join(copy, 'src', 'main.ts'), "process.stdout.write('changed\\n');\n");
    const output = () => service.output.join('');
    await until(
      () => /draining[^]*changed[^]*HTTP listens/.test(output()),
      output,
      COMPILE_TIMEOUT,
    );
    expect((await service.kill('SIGTERM')).code).toBe(0);
    await until(() => all().length === 0, 'the end of what it ran');
  },
);
