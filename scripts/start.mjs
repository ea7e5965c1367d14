// npm start: installs what is missing, builds what is stale, and runs the service.
import { spawn } from 'node:child_process';
import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, env, install, root } from './prepare.mjs';

if (outlivesTerminal()) {
  // SIGHUP would end npm and nest, which install and build. In a session of its own nothing has the terminal.
  process.on('SIGHUP', () => {});
  follow(process.execPath, [fileURLToPath(import.meta.url)], ['SIGTERM', 'SIGINT'], true);
} else {
  install();
  build();
  follow(join(root, 'bin', 'feed-server'), [], ['SIGTERM', 'SIGINT', 'SIGHUP']);
}

/**
 * Runs a program, passes signals on to it, and ends with its exit code. The child decides when to exit. From a terminal it
 * gets each signal twice (kernel and this process) and ignores the repeat.
 *
 * @param detached runs it in a process group of its own, and passes signals on to the whole group: while the child waits
 *   for npm or nest, it can't do so itself, and the signal would end the child alone
 */
function follow(command, args, signals, detached = false) {
  const child = spawn(command, args, { cwd: root, env, stdio: 'inherit', detached });
  child.on('error', (error) => {
    process.stderr.write(`${command} can't be run: ${error.message}\n`);
    process.exit(1);
  });
  for (const signal of signals)
    process.on(signal, () => process.kill(detached ? -child.pid : child.pid, signal));
  child.on('exit', (code, signal) => {
    if (signal) process.stderr.write(`The service was ended by ${signal}.\n`);
    process.exit(signal ? 1 : code);
  });
}

/**
 * The same as in src/process/terminal.ts, which says why. It is here again because this script runs before anything is built, and
 * on a node that can't load TypeScript; and the service has no scripts/ in its image.
 */
function outlivesTerminal() {
  const nothing = statSync('/dev/null').rdev;
  const isFile = (stat) => stat.isFile() || (stat.isCharacterDevice() && stat.rdev === nothing);
  if (![0, 1, 2].every((fd) => isFile(fstatSync(fd)))) return false;
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}
