import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { devNull } from 'node:os';

const STANDARD_STREAMS = [0, 1, 2];

/**
 * True in a process that was started from a terminal and does not use it, as nohup leaves one: standard input, output and
 * error are files or /dev/null. Such a process goes on when the terminal is closed (SIGHUP).
 *
 * It goes by the files because it can't see that nohup had SIGHUP ignored: node sets the signals that it inherits as ignored
 * back to their defaults when it starts (ResetSignalHandlers in src/node.cc), and `npm start` is node already.
 */
export function outlivesTerminal(): boolean {
  return STANDARD_STREAMS.every(isFile) && hasTerminal();
}

function isFile(fd: number): boolean {
  const stat = fstatSync(fd);
  return stat.isFile() || (stat.isCharacterDevice() && stat.rdev === statSync(devNull).rdev);
}

/** A process without a controlling terminal, such as a container's or a supervisor's, can't open /dev/tty. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}
