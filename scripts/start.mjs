// npm start: installs what is missing, builds what is stale, and runs the service.
import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { follow } from './follow.mjs';
import { root } from './prepare.mjs';

if (outlivesTerminal()) {
  // SIGHUP would end npm and nest, which install and build. In a session of its own nothing has the terminal.
  process.on('SIGHUP', () => {});
  const self = fileURLToPath(import.meta.url);
  process.exit(await follow(process.execPath, [self], ['SIGTERM', 'SIGINT'], true));
} else {
  /** @type {NodeJS.Signals[]} */
  const signals = ['SIGTERM', 'SIGINT', 'SIGHUP'];
  const code = await follow(process.execPath, ['scripts/run.mjs', 'prepare'], signals, true);
  if (code !== 0) process.exit(code);
  process.exit(await follow(join(root, 'bin', 'feed-server'), [], signals));
}

/**
 * The same as in src/process/terminal.ts, which says why. It is here again because this script runs before anything is built, and
 * on a node that can't load TypeScript; and the service has no scripts/ in its image.
 */
function outlivesTerminal() {
  const nothing = statSync('/dev/null').rdev;
  /** @param {import('node:fs').Stats} stat */
  const isFile = (stat) => stat.isFile() || (stat.isCharacterDevice() && stat.rdev === nothing);
  if (![0, 1, 2].every((fd) => isFile(fstatSync(fd)))) return false;
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}
