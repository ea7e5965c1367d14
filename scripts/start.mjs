// npm start: installs what is missing, builds what is stale, and runs the service.
import { spawn } from 'node:child_process';
import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build, env, install, node, root } from './prepare.mjs';

if (outlivesTerminal()) {
  // SIGHUP would end npm and nest, which install and build. In a session of its own nothing has the terminal.
  process.on('SIGHUP', () => {});
  follow(process.execPath, [fileURLToPath(import.meta.url)], ['SIGTERM', 'SIGINT'], true);
} else {
  install();
  build();
  follow(node, ['dist/main.js'], ['SIGTERM', 'SIGINT', 'SIGHUP']);
}

/**
 * Runs a program, passes signals on to it, and ends with its exit code. It decides when it ends. A terminal signals it
 * as well, and the service takes twice the same for once.
 */
function follow(command, args, signals, detached = false) {
  const child = spawn(command, args, { cwd: root, env, stdio: 'inherit', detached });
  for (const signal of signals) process.on(signal, () => child.kill(signal));
  child.on('exit', (code, signal) => {
    if (signal) process.stderr.write(`The service was ended by ${signal}.\n`);
    process.exit(signal ? 1 : code);
  });
}

/** True where nohup has started this from a terminal, as in src/terminal.ts, which is not built yet. */
function outlivesTerminal() {
  const nothing = statSync('/dev/null').rdev;
  const isFile = (stat) => stat.isFile() || stat.rdev === nothing;
  if (![0, 1, 2].every((fd) => isFile(fstatSync(fd)))) return false;
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}
