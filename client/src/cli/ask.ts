import { createInterface } from 'node:readline/promises';
import { isatty } from 'node:tty';
import { CommandError, EXIT, EXIT_BY_SIGNAL } from './exit-codes.js';
import type { Interruption } from './interruption.js';

/**
 * Returns the line that a person types at the terminal.
 *
 * @throws CommandError if a signal, Ctrl-D or the end of the terminal comes in its place
 */
export async function ask(question: string, interruption: Interruption): Promise<string> {
  const closed = new AbortController();
  const signal = AbortSignal.any([interruption.signal, closed.signal]);
  // With `terminal: true`, Ctrl-C would be a key that readline reads, and no signal.
  const lines = createInterface({
    input: process.stdin,
    output: process.stderr,
    terminal: false,
  });
  lines.once('close', () => closed.abort()); // At the end of the input, question() would wait for ever.
  let isUnreadable = false;
  lines.once('error', () => {
    isUnreadable = true;
    lines.close();
  });
  try {
    return (await lines.question(question, { signal })).trim();
  } catch (error) {
    if (!signal.aborted) throw error;
    // When the terminal is closed, its input may end, or fail, before SIGHUP comes. It is no terminal any more then.
    const isTerminalClosed = isUnreadable || !isatty(process.stdin.fd);
    const exitCode =
      interruption.exitCode ?? (isTerminalClosed ? EXIT_BY_SIGNAL.SIGHUP : undefined);
    if (exitCode !== undefined)
      throw new CommandError('interrupted: the upload was left as it is', exitCode);
    process.stderr.write('\n'); // The question ends without a line break, and so does Ctrl-D.
    throw new CommandError('no answer: the upload was left as it is', EXIT.doubt);
  } finally {
    lines.close();
  }
}
