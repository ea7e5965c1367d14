import { write } from 'node:fs';
import { endAtOnce } from './end-at-once.js';
import { outlivesTerminal } from './terminal.js';

/**
 * A signal to a process group comes twice: from the kernel, and from a parent process that forwards it, such as npm. So
 * signals within this time (milliseconds) after the first one are ignored. A parent may stand still on a busy machine, and
 * its repeat would end the drain. Who presses Ctrl-C again so soon presses it once more.
 */
const REPEAT_INTERVAL = 1_000;

/** How long (milliseconds) writing the last line may take: a terminal that Ctrl-S has stopped takes none. */
const LAST_LINE_TIMEOUT = 100;

const STANDARD_ERROR = 2;

export interface Signals {
  /** The first signal calls this. It exits the process until run() has set it, once the service is up. */
  drain: () => void;
}

/**
 * Handles SIGTERM, SIGINT and SIGHUP from now on: the first one calls `drain`, the next one ends the process at once.
 * SIGHUP is ignored in a process that outlives its terminal.
 */
export function handleSignals(): Signals {
  const ignoresHangup = outlivesTerminal();
  const signals: Signals = { drain: () => process.exit(0) };
  let signalledAt = 0;
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (signal === 'SIGHUP' && ignoresHangup) return;
      if (signalledAt === 0) {
        signalledAt = performance.now();
        signals.drain();
      } else if (performance.now() - signalledAt > REPEAT_INTERVAL) {
        write(STANDARD_ERROR, `${signal} again: ending at once\n`, () => endAtOnce(1));
        setTimeout(endAtOnce, LAST_LINE_TIMEOUT, 1);
      }
    });
  }
  return signals;
}
