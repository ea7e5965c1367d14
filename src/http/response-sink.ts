import type { ServerResponse } from 'node:http';
import type { Frames } from '../wire/frames.js';
import type { Sink } from '../wire/pump.js';
import type { EventFormat, TextPart } from './event-format.js';

const NOTHING: Buffer = Buffer.alloc(0);

/** Writes batches as text to a response, a part at a time, each once the kernel has taken the one before. */
export class ResponseSink implements Sink {
  private onReady!: () => void;
  private onError!: (error: unknown) => void;
  /** The batch that is being sent. What comes from `at` on was not written yet, but for what is `begun` (TextPart) of the first event of it. */
  private frames = NOTHING;
  private at = 0;
  private begun = 0;
  /** How many parts are written that the kernel has not taken. */
  private pending = 0;
  /** Set by end(), which writes the rest by itself. */
  private onEnd: (() => void) | undefined;

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
    this.take(bytes);
    this.writePart();
  }

  end(taken: Frames | undefined, onEnd: () => void): void {
    this.onEnd = onEnd;
    if (taken) this.take(taken.bytes);
    const { response } = this;
    response.once('close', onEnd);
    // Where a piece of a long event is on its way, the others follow it.
    if (this.begun === 0 || response.destroyed) this.writeRest();
  }

  private take(frames: Buffer): void {
    this.frames = frames;
    this.at = 0;
    this.begun = 0;
  }

  /** Writes what is left of the batch at once; of a long event, a piece at a time, because all of its text takes much more memory. */
  private writeRest(): void {
    const { response } = this;
    while (this.frames.length > 0 && !response.destroyed) {
      this.writePart();
      if (this.begun > 0) return;
    }
    this.onEnd?.();
  }

  private writePart(): void {
    let part: TextPart;
    try {
      part = this.format.textOf(this.frames, this.at, this.begun);
    } catch (error) {
      this.take(NOTHING);
      this.onError(error);
      return;
    }
    const { text, end, begun } = part;
    this.at = end;
    this.begun = begun;
    // Where all is text, the frames need not be kept while the client does not read it.
    if (end === this.frames.length) this.frames = NOTHING;
    this.pending++;
    this.response.write(text, this.onWritten);
  }

  private readonly onWritten = (error: Error | null | undefined): void => {
    this.pending--;
    // After an error the response closes, which aborts the signal, and ends what end() waits for.
    if (error) return;
    if (this.onEnd) {
      if (this.pending === 0) this.writeRest();
    } else if (this.frames.length > 0) {
      this.writePart();
    } else {
      this.onReady();
    }
  };
}
