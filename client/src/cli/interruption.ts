import { closeSync, fstatSync, openSync } from 'node:fs';
import { isatty } from 'node:tty';
import { CommandError, EXIT_BY_SIGNAL } from './exit-codes.js';

/** A request to end, by Ctrl-C or a signal. */
export interface Interruption {
  /** Fires at the first signal. */
  readonly signal: AbortSignal;
  /** Fires STOPS_WITHIN milliseconds after that: what then still waits for an acknowledgement ends. */
  readonly ending: AbortSignal;
  /** The exit code of an end before the work was done; undefined while no signal has come. */
  readonly exitCode: number | undefined;
}

/** After Ctrl-C, a command waits this many milliseconds for the acknowledgement of what it has sent. */
const STOPS_WITHIN = 3_000;

/**
 * A second signal within this many milliseconds is the first one's echo: at Ctrl-C, the terminal signals this process and npx, and
 * npx passes its signal on to this process. It may stand still on a busy machine. Who presses Ctrl-C again so soon presses it once
 * more.
 */
const ECHO_WITHIN = 1_000;

/**
 * Makes Ctrl-C (SIGINT), SIGTERM and SIGHUP end the command's work in order. A second signal, if it is no echo of the first, ends
 * the process at once. Where nohup started the command, SIGHUP does nothing.
 */
export function catchSignals(): Interruption {
  const controller = new AbortController();
  const ending = new AbortController();
  const ignoresHangup = outlivesTerminal();
  let exitCode: number | undefined;
  let firstAt = 0;
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (name === 'SIGHUP' && ignoresHangup) return;
      if (exitCode === undefined) {
        exitCode = EXIT_BY_SIGNAL[name];
        firstAt = performance.now();
        // The terminal has written "^C" at the beginning of the line.
        if (name === 'SIGINT' && process.stderr.isTTY) process.stderr.write('\n');
        controller.abort();
        setTimeout(() => ending.abort(), STOPS_WITHIN).unref();
      } else if (performance.now() - firstAt > ECHO_WITHIN) endBy(name);
    });
  }
  return {
    signal: controller.signal,
    ending: ending.signal,
    get exitCode() {
      return exitCode;
    },
  };
}

/**
 * Ends the process by the signal's default action. process.exit() alone waits for libuv's threads, and one of them may be blocked
 * for as long as it takes another process to write to a pipe, or a name server to answer.
 */
function endBy(name: NodeJS.Signals & keyof typeof EXIT_BY_SIGNAL): void {
  if (process.stdin.isTTY && process.stdin.isRaw) process.stdin.setRawMode(false);
  process.removeAllListeners(name);
  process.kill(process.pid, name);
  process.exit(EXIT_BY_SIGNAL[name]); // The first process of a container survives the default action of its own signals.
}

/**
 * Returns the error of a call that is made once. If a signal has cancelled the call, this says so, and what the server may have done;
 * the exit code is then the signal's. Otherwise it is the error as it is.
 */
export function interruptedCall(
  error: unknown,
  { exitCode }: Interruption,
  doubt?: string,
): unknown {
  if (exitCode === undefined) return error;
  const what = 'interrupted before the server answered';
  const message = doubt === undefined ? what : `${what}: ${doubt}`;
  return new CommandError(message, exitCode, { cause: error });
}

/** Returns the summary of a list, such as `3 topics`; after a signal, it says that the list may have more. */
export function listing(listed: string, { exitCode }: Interruption): string {
  return exitCode === undefined ? listed : `interrupted after ${listed}: there may be more`;
}

/**
 * True if this process was started from a terminal but does not use it, such as under nohup: its standard input, output and error are
 * files or /dev/null, or closed. Node restores the default of signals that it inherits as ignored, so a terminal that closes would end a
 * command that nohup has started. Without a terminal, SIGHUP comes from whoever wants the command to end.
 */
function outlivesTerminal(): boolean {
  return [0, 1, 2].every(isFile) && hasTerminal();
}

function isFile(fd: number): boolean {
  try {
    const found = fstatSync(fd);
    return found.isFile() || (found.isCharacterDevice() && !isatty(fd));
  } catch {
    return true; // It is closed.
  }
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
