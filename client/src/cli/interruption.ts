import { EXIT_BY_SIGNAL } from './exit-codes.js';

/** A request to end, by Ctrl-C or a signal. */
export interface Interruption {
  /** Fires at the first signal. */
  readonly signal: AbortSignal;
  /** The exit code of an end before the work was done; undefined while no signal has come. */
  readonly exitCode: number | undefined;
}

/**
 * Makes Ctrl-C (SIGINT), SIGTERM and SIGHUP end the command's work in order. A second signal ends the process at once.
 */
export function catchSignals(): Interruption {
  const controller = new AbortController();
  let exitCode: number | undefined;
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (exitCode !== undefined) process.exit(EXIT_BY_SIGNAL[name]);
      exitCode = EXIT_BY_SIGNAL[name];
      controller.abort();
    });
  }
  return {
    signal: controller.signal,
    get exitCode() {
      return exitCode;
    },
  };
}
