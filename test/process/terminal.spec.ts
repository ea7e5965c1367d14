import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test, type TestContext } from 'vitest';
import { upload } from '../support/client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { skip, works } from '../support/shim.js';
import { until } from '../support/wait.js';
import { checkout } from './checkout.js';
import { processesWith, read } from './processes.js';

const isRunning = (pid: number): boolean => read(`/proc/${pid}/stat`) !== '';

/** Signals processes, some of which may have ended: the first signal may end another one of them as well. */
function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
}

/**
 * Runs a shell's command line on a terminal of its own, beside a witness that ends when the terminal is closed.
 *
 * @returns the service, once it is ready; `close` closes the terminal and resolves once the witness has its SIGHUP
 */
async function onTerminal(context: TestContext, command: string) {
  if (!works('script', '--version')) skip(context, 'there is no script(1) to make a terminal');
  const directory = temporaryDirectory();
  const log = join(directory, 'log');
  const data = join(directory, 'data');
  const witness = join(directory, 'witness');
  const service = ServiceProcess.shell('exec script -qec "$COMMAND" /dev/null', {
    COMMAND: `sleep 1000 & echo $! >${witness}; ${command}`,
    SHELL: '/bin/sh',
    LOG: log,
    FEED_DATA_DIR: data,
  });
  const all = () => processesWith(`FEED_DATA_DIR=${data}`);
  onTestFinished(() => signalAll(all(), 'SIGKILL'));
  await service.ready(() => service.output.join('') + read(log));
  const close = async (): Promise<void> => {
    const pid = Number(read(witness));
    expect(isRunning(pid)).toBe(true);
    await service.kill('SIGKILL');
    await until(() => !isRunning(pid), 'SIGHUP');
  };
  return { service, close, all };
}

const SERVER = 'bin/feed-server';

test.for(['nohup npm start >$LOG 2>&1 & wait', `nohup ${SERVER} >$LOG 2>&1 </dev/null & wait`])(
  'goes on when the terminal that it was started from is closed: %s',
  async (command, context) => {
    const { service, close, all } = await onTerminal(context, command);
    await close();
    const client = service.connect();
    expect((await upload(client, [{ topic: 'orders', body: 'a' }])).result?.received).toBe(1);
    expect((await fetch(`http://${service.httpAddress}/readyz`)).status).toBe(200);
    signalAll(all(), 'SIGTERM');
    await until(() => all().length === 0, 'the end after SIGTERM');
  },
);

/** Shell commands that start a script, in a terminal and without one. */
const STARTS = {
  'what nohup started': 'exec script -qec "nohup sh $START >$LOG 2>&1 </dev/null & wait" /dev/null',
  'npm start': 'exec sh $START',
};

test.for(Object.entries(STARTS))(
  'SIGTERM ends npm too, while %s still installs',
  async ([, command], context) => {
    if (!works('script', '--version')) skip(context, 'there is no script(1) to make a terminal');
    const { root, env } = checkout(
      { dependencies: { slow: 'file:slow.tgz' }, allowScripts: { slow: true } },
      { slow: { fields: { scripts: { install: 'sleep 1000' } } } },
    );
    const [start, pid, log] = ['start', 'pid', 'log'].map((name) => join(root, name));
    writeFileSync(start, `echo $$ >${pid}; exec node ${join(root, 'scripts', 'start.mjs')}`);
    const settings = { ...env, START: start, LOG: log, SHELL: '/bin/sh' };
    const service = ServiceProcess.shell(command, settings);
    const all = () => processesWith(`npm_config_cache=${env.npm_config_cache}`);
    onTestFinished(() => signalAll(all(), 'SIGKILL'));
    const installing = () =>
      processesWith('npm_package_name=slow').filter((one) => all().includes(one));
    await until(
      () => installing().length > 0,
      () => `the install: ${service.output.join('')}${read(log)}`,
    );
    process.kill(Number(read(pid)), 'SIGTERM');
    await until(() => all().length === 0, 'the end of npm and of what it runs');
  },
);

test.for(['npm start', `${SERVER} >$LOG 2>&1`])(
  'drains when its terminal is closed: %s',
  async (command, context) => {
    const { close, all } = await onTerminal(context, command);
    await close();
    await until(() => all().length === 0, 'the end after SIGHUP');
  },
);
