import type { Frames, FrameSource } from './frames.js';

/** The way of a stream's batches to one client. Each door has its own. */
export interface Sink {
  /** Aborts when the stream is to end early, also because its client is gone. */
  readonly signal: AbortSignal;

  /**
   * Called once, before the other methods.
   *
   * @param onReady the sink calls it when it may take a batch again, after isReady() was false or after a write; never during
   *   isReady() or write() itself
   * @param onError the sink calls it when it can't send the rest of a batch, also during write() or end(), and drops that rest
   */
  open(onReady: () => void, onError: (error: unknown) => void): void;

  /** True if a batch may be written now. */
  isReady(): boolean;

  /** Begins to send a batch, which is sent whole unless that fails. */
  write(frames: Frames): void;

  /**
   * The source gives no more batches. Sends what is left of the one that was begun, or `taken`: there is such a one only where all before it was sent.
   *
   * @param taken a batch that the source counts as sent, although the signal aborted before it was written
   * @param onEnd called once the end of the stream can follow, or once the client is gone; it may be called more than once
   */
  end(taken: Frames | undefined, onEnd: () => void): void;
}

/**
 * Sends a source's batches into a sink, one at a time, so that a slow client costs the memory of one batch. Resolves at the
 * end of the source; rejects with the error of the source or of the sink, or with what the source makes of the reason of the signal's abort.
 * Closes the source if it opened it. A batch that was begun is sent whole, unless the sink fails: then its error wins over the reason of an
 * abort, which may say that all of the batch was sent.
 */
export function pump(source: FrameSource, sink: Sink): Promise<void> {
  return new Promise((resolve, reject) => new Pump(source, sink, resolve, reject).start());
}

/**
 * Makes no promise and no closure for a batch (docs/performance.md, "No promise and no closure for a batch").
 *
 * `turn` says who acts next:
 * - `source`, where it starts: send() takes the next batch.
 *   To `sink` with a batch, or where the sink can't take one. To `asked source` where take() returns a promise. To `nobody` at the
 *   source's end or error, and at an abort. It stays if there is no batch now: the source calls send() once it has one.
 * - `asked source`: take() has returned a promise.
 *   To `sink` with its batch. To `source` without one. To `nobody` at its error, at the source's end, and at an abort, once the promise has
 *   settled.
 * - `sink`: it sends a batch, or can't take one.
 *   To `source` at onReady(). To `nobody` at the sink's error, and at an abort.
 * - `nobody`: the source is closed, the sink sends what is left, and then the promise of pump() settles. It stays.
 */
class Pump {
  private turn: 'source' | 'asked source' | 'sink' | 'nobody' = 'source';
  /** The source called send() while its promise was pending, so it may have a batch even if the promise brings none. */
  private hasMore = false;

  constructor(
    private readonly source: FrameSource,
    private readonly sink: Sink,
    private readonly resolve: () => void,
    private readonly reject: (error: unknown) => void,
  ) {}

  start(): void {
    const { signal } = this.sink;
    if (signal.aborted) {
      this.reject(this.errorOfAbort);
      return;
    }
    signal.addEventListener('abort', this);
    this.sink.open(this.onReady, this.onError);
    try {
      this.source.open(this.send);
    } catch (error) {
      this.fail(error);
    }
    this.send();
  }

  /** The signal aborts. */
  handleEvent(): void {
    // The promise of `asked source` is awaited first: the source sees the abort too, and may have to clean up.
    if (this.turn !== 'asked source') this.fail(this.errorOfAbort);
  }

  private get errorOfAbort(): unknown {
    const { reason } = this.sink.signal;
    return this.source.onAbort ? this.source.onAbort(reason) : reason;
  }

  private readonly onReady = (): void => {
    if (this.turn !== 'sink') return;
    this.turn = 'source';
    this.send();
  };

  private readonly onError = (error: unknown): void => {
    if (this.turn === 'nobody') this.reject(error);
    else this.fail(error);
  };

  /** Takes and writes the next batch, if it is the source's turn. */
  private readonly send = (): void => {
    if (this.turn === 'asked source') this.hasMore = true;
    while (this.turn === 'source') {
      if (!this.sink.isReady()) {
        this.turn = 'sink';
        return;
      }
      try {
        const taken = this.source.take();
        if (taken instanceof Promise) {
          this.turn = 'asked source';
          this.hasMore = false;
          taken.then(this.onTaken, this.fail);
        } else if (taken) {
          this.write(taken);
        } else {
          if (this.source.isOver) this.end(this.resolve);
          return;
        }
      } catch (error) {
        this.fail(error);
      }
    }
  };

  private readonly onTaken = (taken: Frames | undefined): void => {
    if (this.sink.signal.aborted) {
      const error = this.errorOfAbort;
      this.end(() => this.reject(error), taken);
      return;
    }
    this.turn = 'source';
    if (taken) this.write(taken);
    else if (this.source.isOver) this.end(this.resolve);
    else if (this.hasMore) this.send();
  };

  private write(frames: Frames): void {
    this.turn = 'sink';
    this.sink.write(frames);
  }

  private readonly fail = (error: unknown): void => this.end(() => this.reject(error));

  private end(settle: () => void, taken?: Frames): void {
    if (this.turn === 'nobody') return;
    this.turn = 'nobody';
    this.sink.signal.removeEventListener('abort', this);
    const closing = this.source.close();
    const finish = (): void => this.sink.end(taken, settle);
    if (closing) closing.then(finish, finish);
    else finish();
  }
}
