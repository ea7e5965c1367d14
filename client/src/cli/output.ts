import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { CommandError, EXIT } from './exit-codes.js';
import type { Interruption } from './interruption.js';
import { systemError } from '../system-error.js';

/** Text is collected up to this many characters, or to the end of a turn of the event loop, and then written at once. */
const CHUNK_CHARS = 64 * 2 ** 10;

/**
 * Standard output for data. Writers wait while its reader is slow. When the reader goes away, as `head` does, `closed` fires
 * and all that follows is dropped. So it is when a signal ends the command and the reader does not take in time what was written
 * before; flush() then throws.
 */
export class Output {
  private readonly closing = new AbortController();
  private text = '';
  private isScheduled = false;
  private failure: CommandError | undefined;

  constructor(
    interruption?: Interruption,
    private readonly stream: Writable = process.stdout,
  ) {
    interruption?.ending.addEventListener('abort', () => {
      if (stream.writableLength === 0) return;
      this.failure ??= new CommandError(
        'interrupted: the reader of standard output has not taken all that was written',
        interruption.exitCode ?? EXIT.failed,
      );
      this.closing.abort();
    });
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE')
        this.failure ??= new CommandError(
          `standard output can't be written to: ${systemError(error)}`,
          EXIT.file,
          { cause: error },
        );
      this.closing.abort();
    });
  }

  /** Fires when nothing more can be written. */
  get closed(): AbortSignal {
    return this.closing.signal;
  }

  /** Writes text. Resolves when the reader can take more; returns undefined if it can already. */
  write(text: string): Promise<void> | undefined {
    if (this.closed.aborted) return undefined;
    this.text += text;
    if (this.text.length >= CHUNK_CHARS) this.send();
    else if (!this.isScheduled) {
      this.isScheduled = true;
      setImmediate(() => {
        this.isScheduled = false;
        this.send();
      });
    }
    return this.stream.writableNeedDrain ? this.drained() : undefined;
  }

  /**
   * Resolves when the reader's pipe, or the file, has taken all that was written, or `closed` has fired.
   *
   * @throws CommandError for an error such as a full disk, and for a reader that has not taken in time what was written before a
   * signal; a reader that went away is no error
   */
  async flush(): Promise<void> {
    this.send();
    if (!this.closed.aborted) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          this.closed.removeEventListener('abort', done);
          resolve();
        };
        this.closed.addEventListener('abort', done);
        this.stream.write('', done);
      });
    }
    if (this.failure) throw this.failure;
  }

  /** Hands over the text that write() has gathered, without waiting for the end of the turn. */
  send(): void {
    if (this.text === '') return;
    const { text } = this;
    this.text = '';
    if (!this.closed.aborted) this.stream.write(text);
  }

  private async drained(): Promise<void> {
    await once(this.stream, 'drain', { signal: this.closed }).catch(() => {});
  }
}
