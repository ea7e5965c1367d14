import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { CommandError, EXIT } from './exit-codes.js';
import { systemError } from '../system-error.js';

/** Text is collected up to this many characters, or to the end of a turn of the event loop, and then written at once. */
const CHUNK_CHARS = 64 * 2 ** 10;

/**
 * Standard output for data. Writers wait while its reader is slow. When the reader goes away, as `head` does, `closed` fires
 * and all that follows is dropped.
 */
export class Output {
  private readonly closing = new AbortController();
  private text = '';
  private isScheduled = false;
  private failure: CommandError | undefined;

  constructor(private readonly stream: Writable = process.stdout) {
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
   * @throws CommandError for an error such as a full disk; a reader that went away is none
   */
  async flush(): Promise<void> {
    this.send();
    if (!this.closed.aborted) {
      await new Promise<void>((resolve) => {
        this.stream.write('', () => resolve());
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
