import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { devNull } from 'node:os';

const STANDARD_STREAMS = [0, 1, 2];

/**
 * True if this process was started from a terminal but does not use it, such as under nohup: its standard input, output
 * and error are files or /dev/null. Such a process goes on when the terminal is closed (SIGHUP).
 *
 * The process can't see directly that nohup ignored SIGHUP for it: at its start, node sets ignored signals back to their
 * defaults (ResetSignalHandlers in src/node.cc), and with `npm start` npm's own node has done so before.
 */
export function outlivesTerminal(): boolean {
  return STANDARD_STREAMS.every(isFile) && hasTerminal();
}

function isFile(fd: number): boolean {
  const stat = fstatSync(fd);
  return stat.isFile() || (stat.isCharacterDevice() && stat.rdev === statSync(devNull).rdev);
}

/** True if /dev/tty can be opened. A process of a container or a supervisor has no controlling terminal and can't. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}
