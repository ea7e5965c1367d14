import { write } from 'node:fs';
import { endAtOnce } from './end-at-once.js';
import { outlivesTerminal } from './terminal.js';

/**
 * A signal to a process group comes twice, from the kernel and from the parent process that forwards it. The second one
 * within this time (milliseconds) is taken for the same signal.
 */
const SAME_SIGNAL = 250;

/** How long (milliseconds) writing the last line may take, on a terminal that is held by Ctrl-S. */
const LAST_LINE = 100;

const STANDARD_ERROR = 2;

export interface Signals {
  /** Called at the first signal. Until the service is up, it ends the process. */
  drain: () => void;
}

/**
 * Handles SIGTERM, SIGINT and SIGHUP from now on: the first one calls `drain`, the next one ends the process at once.
 * SIGHUP is ignored in a process that outlives its terminal.
 */
export function handleSignals(): Signals {
  const ignoresHangup = outlivesTerminal();
  const signals: Signals = { drain: () => process.exit(0) };
  let signalled = 0;
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (signal === 'SIGHUP' && ignoresHangup) return;
      if (signalled === 0) {
        signalled = performance.now();
        signals.drain();
      } else if (performance.now() - signalled > SAME_SIGNAL) {
        write(STANDARD_ERROR, `${signal} again: ending at once\n`, () => endAtOnce(1));
        setTimeout(endAtOnce, LAST_LINE, 1);
      }
    });
  }
  return signals;
}
