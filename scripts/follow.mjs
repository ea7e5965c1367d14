import { spawn } from 'node:child_process';
import { env, root } from './prepare.mjs';

/**
 * Runs a program of the project, and passes signals that this process gets on to it. The program decides when to end. From
 * a terminal it gets each signal twice (kernel and this process), and must ignore the repeat.
 *
 * @param {string} command
 * @param {readonly string[]} args
 * @param {readonly NodeJS.Signals[]} signals
 * @param {boolean} detached runs the program in a process group of its own, and passes signals on to the whole group: a
 *   script that waits for npm or nest can't pass a signal on itself, and would end alone
 * @returns {Promise<number>} the program's exit code; 1 if a signal ended it
 */
export function follow(command, args, signals, detached = false) {
  const child = spawn(command, args, { cwd: root, env, stdio: 'inherit', detached });
  /** @param {NodeJS.Signals} signal */
  const passOn = (signal) => {
    if (child.pid !== undefined) process.kill(detached ? -child.pid : child.pid, signal);
  };
  for (const signal of signals) process.on(signal, passOn);
  return new Promise((resolve) => {
    child.on('error', (error) => {
      process.stderr.write(`${command} can't be run: ${error.message}\n`);
      resolve(1);
    });
    child.on('exit', (code, signal) => {
      for (const each of signals) process.off(each, passOn);
      if (signal) process.stderr.write(`${[command, ...args].join(' ')} was ended by ${signal}.\n`);
      resolve(code ?? 1);
    });
  });
}
