import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Writable } from 'node:stream';
import type { AtEnd } from '../support/service.js';
import type { Program } from './build.js';

/** A program of examples/clients that runs. */
export interface Running {
  /** The complete lines that it has written to standard output. */
  readonly lines: readonly string[];
  /** All that it has written to standard error. */
  errors(): string;
  readonly input: Writable;
  /** Resolves with the exit code once the program has ended and all that it wrote is here; null after a signal. */
  readonly exited: Promise<number | null>;
}

/**
 * Starts a program with the arguments given.
 *
 * @param settings environment variables
 * @param atEnd ends the program
 */
export function start(
  { directory, command, env }: Program,
  args: readonly string[],
  settings: Readonly<Record<string, string>>,
  atEnd: AtEnd,
): Running {
  const [file, ...options] = command.split(' ');
  const child = spawn(file, [...options, ...args], {
    cwd: directory,
    // Without proxies, which gRPC would use even on the way to this machine.
    env: { PATH: env.PATH, PYTHONPATH: env.PYTHONPATH, ...settings },
    stdio: 'pipe',
  });
  const lines: string[] = [];
  let rest = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n');
    rest = parts.pop()!;
    lines.push(...parts);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  // A program that has ended takes no more input; its exit code says why.
  child.stdin.on('error', () => {});
  const exited = once(child, 'close').then(([code]) => code as number | null);
  atEnd(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  return { lines, errors: () => errors, input: child.stdin, exited };
}
