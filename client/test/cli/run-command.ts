import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

const program = fileURLToPath(new URL('../../bin/feed.js', import.meta.url));

/** The node that runs the command; FEED_TEST_CLIENT_NODE names another one, such as the oldest that the client supports. */
const node = process.env.FEED_TEST_CLIENT_NODE ?? process.execPath;

/** How the command ended, and what it wrote. */
export interface Ending {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The feed command in a process of its own. */
export class RunningCommand {
  stdout = '';
  stderr = '';
  readonly ended: Promise<Ending>;

  constructor(readonly process: ChildProcess) {
    process.stdout!.setEncoding('utf8').on('data', (text: string) => (this.stdout += text));
    process.stderr!.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    this.ended = once(process, 'close').then(([code]) => {
      const { stdout, stderr } = this;
      return { code: code as number | null, stdout, stderr };
    });
  }
}

/** Starts `feed <args>`, with nothing of this process's environment that the command reads. */
export function startFeed(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  stdin: 'ignore' | 'pipe' = 'ignore',
): RunningCommand {
  return started([node, program, ...args], env, stdin);
}

/** Starts a shell command in which `feed` is the command. In the background, `$NODE $PROGRAM` has no shell around it. */
export function startShell(command: string, env: NodeJS.ProcessEnv = {}): RunningCommand {
  const variables = { NODE: node, PROGRAM: program, ...env };
  return started(
    ['bash', '-c', `feed() { "$NODE" "$PROGRAM" "$@"; }; ${command}`],
    variables,
    'ignore',
    true,
  );
}

/** Starts `feed <args>` on a terminal of its own, which is its standard input, output and error at once. */
export function startOnTerminal(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): RunningCommand {
  const command = ['exec', node, program, ...args].map((word) => `'${word}'`).join(' ');
  const script = ['script', '-qec', command.replace("'exec'", 'exec'), '/dev/null'];
  return started(script, { TERM: 'xterm', SHELL: '/bin/sh', ...env }, 'pipe');
}

/**
 * Starts a shell command on a terminal of its own. `$NODE $PROGRAM` is the feed command. To end the process that is returned closes the
 * terminal.
 */
export function startShellOnTerminal(command: string, env: NodeJS.ProcessEnv = {}): RunningCommand {
  const variables = { TERM: 'xterm', SHELL: '/bin/sh', NODE: node, PROGRAM: program, ...env };
  return started(['script', '-qec', command, '/dev/null'], variables, 'pipe');
}

function started(
  [file, ...args]: readonly string[],
  env: NodeJS.ProcessEnv,
  stdin: 'ignore' | 'pipe',
  /** True for a program that starts others, which end with it after the test. */
  hasOthers = false,
): RunningCommand {
  const child = spawn(file, args, {
    detached: hasOthers,
    env: { PATH: process.env.PATH, ...env },
    stdio: [stdin, 'pipe', 'pipe'],
  });
  onTestFinished(() => {
    if (!hasOthers) return void child.kill('SIGKILL');
    try {
      process.kill(-child.pid!, 'SIGKILL');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // all have ended
    }
  });
  return new RunningCommand(child);
}

/** Runs `feed <args>` to its end. */
export function runFeed(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<Ending> {
  return startFeed(args, env).ended;
}
