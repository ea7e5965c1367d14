import type { ServerResponse } from 'node:http';
import type { Frames } from '../wire/frames.js';
import type { Sink } from '../wire/pump.js';
import type { EventFormat, TextPart } from './event-format.js';

const NOTHING: Buffer = Buffer.alloc(0);

/** Writes batches as text to a response, a part at a time, each once the kernel has taken the one before. */
export class ResponseSink implements Sink {
  private onReady!: () => void;
  private onError!: (error: unknown) => void;
  /** The batch that is being sent. What comes from `at` on was not written yet. */
  private frames = NOTHING;
  private at = 0;
  /** True from end() on, which writes the rest by itself. */
  private isEnding = false;

  constructor(
    readonly signal: AbortSignal,
    private readonly response: ServerResponse,
    private readonly format: EventFormat,
  ) {}

  open(onReady: () => void, onError: (error: unknown) => void): void {
    this.onReady = onReady;
    this.onError = onError;
  }

  /** The pump asks for no batch before the kernel has taken the one before. */
  isReady(): boolean {
    return true;
  }

  write({ bytes }: Frames): void {
    this.frames = bytes;
    this.at = 0;
    this.writePart();
  }

  end(taken: Frames | undefined, onEnd: () => void): void {
    this.isEnding = true;
    if (taken) {
      this.frames = taken.bytes;
      this.at = 0;
    }
    while (this.frames.length > 0 && !this.response.destroyed) this.writePart();
    onEnd();
  }

  private writePart(): void {
    let part: TextPart;
    try {
      part = this.format.textOf(this.frames, this.at);
    } catch (error) {
      this.frames = NOTHING;
      this.onError(error);
      return;
    }
    const { text, end } = part;
    this.at = end;
    // Where all is text, the frames need not be kept while the client does not read it.
    if (end === this.frames.length) this.frames = NOTHING;
    this.response.write(text, this.onWritten);
  }

  private readonly onWritten = (error: Error | null | undefined): void => {
    // After an error the response closes, which aborts the signal.
    if (error || this.isEnding) return;
    if (this.frames.length > 0) this.writePart();
    else this.onReady();
  };
}
