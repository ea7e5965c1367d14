import type { FrameSource, Frames } from '../../wire/frames.js';
import type { Call } from './call.js';

/** The largest single write, in bytes. A larger batch is written in parts, each once the kernel has taken the one before. */
const PART_BYTES = 64 * 1024;

/**
 * Sends a source's batches to the client, one at a time, so that a slow client costs the memory of one batch. Resolves at the
 * end of the source; rejects with the source's error, or with what the source makes of the reason of the call's abort. Closes the
 * source if it opened it. A batch that was begun is sent whole.
 */
export function pump(source: FrameSource, call: Call): Promise<void> {
  return new Promise((resolve, reject) => {
    call.sendHeaders();
    new Pump(source, call, resolve, reject).start();
  });
}

/**
 * Makes no promise and no closure for a batch (docs/performance.md, "No promise and no closure for a batch").
 *
 * `turn` says who acts next. Each of the first four can go to `nobody`: at an error, at an abort, or at the source's end.
 * - `source`: it starts here. send() takes the next batch, and the turn goes to one of the next three. If there is no batch now,
 *   the source calls send() once it has one.
 * - `asked source`: take() has returned a promise. With its batch the turn goes to `client`, without one back to `source`.
 * - `client`: a write is not done. onWritten() then goes to `source`, or if a part is left, to `client` or `connection`.
 * - `connection`: the connection is full. resume() then goes to `client` with the next part, or to `source`.
 * - `nobody`: the source is closed, and the promise of pump() settles.
 */
class Pump {
  private turn: 'source' | 'asked source' | 'client' | 'connection' | 'nobody' = 'source';
  /** The source called send() while its promise was pending, so it may have a batch even if the promise brings none. */
  private hasMore = false;
  /** The rest of a batch that is larger than one write. */
  private unsent: Buffer | undefined;
  /** The bytes of the write that is not done, and its round (SendLimit). */
  private writingBytes = 0;
  private round = 0;

  constructor(
    private readonly source: FrameSource,
    private readonly call: Call,
    private readonly resolve: () => void,
    private readonly reject: (error: unknown) => void,
  ) {}

  start(): void {
    const { call } = this;
    if (call.signal.aborted) {
      this.reject(this.errorOfAbort);
      return;
    }
    call.signal.addEventListener('abort', this);
    try {
      this.source.open(this.send);
    } catch (error) {
      this.fail(error);
    }
    this.send();
  }

  /** The call's signal aborts. */
  handleEvent(): void {
    // The promise of `asked source` is awaited first: the source sees the abort too, and may have to clean up.
    if (this.turn !== 'asked source') this.fail(this.errorOfAbort);
  }

  private get errorOfAbort(): unknown {
    const { reason } = this.call.signal;
    return this.source.onAbort ? this.source.onAbort(reason) : reason;
  }

  /** SendLimit calls this when the connection has room again. */
  resume(): void {
    if (this.turn !== 'connection') return;
    this.turn = 'source';
    if (this.unsent) this.write(this.unsent);
    else this.send();
  }

  /** Takes and writes the next batch, if it is the source's turn. */
  private readonly send = (): void => {
    if (this.turn === 'asked source') this.hasMore = true;
    while (this.turn === 'source') {
      if (this.call.connection.outbound.isFull()) {
        this.waitForConnection();
        return;
      }
      try {
        const taken = this.source.take();
        if (taken instanceof Promise) {
          this.turn = 'asked source';
          this.hasMore = false;
          taken.then(this.onTaken, this.fail);
        } else if (taken) {
          this.write(taken.bytes);
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
    if (this.call.signal.aborted) {
      this.unsent = taken?.bytes; // The source counts it as sent.
      this.fail(this.errorOfAbort);
      return;
    }
    this.turn = 'source';
    if (taken) this.write(taken.bytes);
    else if (this.source.isOver) this.end(this.resolve);
    else if (this.hasMore) this.send();
  };

  /**
   * Writes a batch, or the first part of a long one, straight to the HTTP/2 stream. grpc-js would make a write, an allocation
   * and a copy for each message (grpc-node 2899). It still sends headers and trailers, which queue on the same stream.
   */
  private write(bytes: Buffer): void {
    const { stream, connection } = this.call;
    const part = bytes.length > PART_BYTES ? bytes.subarray(0, PART_BYTES) : bytes;
    this.unsent = part === bytes ? undefined : bytes.subarray(PART_BYTES);
    this.turn = 'client';
    // grpc-js ended the stream at its deadline. The call's own timer aborts the call soon.
    if (stream.writableEnded) return;
    this.writingBytes = part.length;
    this.round = connection.outbound.writeBegins(part.length);
    stream.write(part, this.onWritten);
  }

  private readonly onWritten = (error: Error | null | undefined): void => {
    const { call, unsent } = this;
    call.connection.writeDone(this.writingBytes, this.round);
    // After an error the stream closes, which aborts the call with the reason.
    if (error) return;
    call.writesDone++;
    if (this.turn !== 'client') return;
    this.turn = 'source';
    if (!unsent) this.send();
    else if (call.connection.outbound.isFull()) this.waitForConnection();
    else this.write(unsent);
  };

  private waitForConnection(): void {
    this.turn = 'connection';
    this.call.connection.outbound.waitForRoom(this);
  }

  private readonly fail = (error: unknown): void => this.end(() => this.reject(error));

  private end(settle: () => void): void {
    if (this.turn === 'nobody') return;
    this.turn = 'nobody';
    const { call, unsent } = this;
    this.unsent = undefined;
    call.connection.outbound.stopWaiting(this);
    call.signal.removeEventListener('abort', this);
    const closing = this.source.close();
    const finish = unsent ? () => writeRest(call, unsent, settle) : settle;
    if (closing) closing.then(finish, finish);
    else finish();
  }
}

/**
 * Writes what is left of a batch after an abort: a client that gets a status within a message reports another one. Calls `onEnd`
 * once the status can follow, or once the stream can't be written to any more; it may do so more than once.
 */
function writeRest(call: Call, rest: Buffer, onEnd: () => void): void {
  const { stream, connection } = call;
  // If a write is not done when the stream closes, node may never call back.
  stream.once('close', onEnd);
  const writePart = (at: number): void => {
    if (call.isClosed || stream.writableEnded) {
      onEnd();
      return;
    }
    const part = rest.subarray(at, at + PART_BYTES);
    const next = at + part.length;
    const round = connection.outbound.writeBegins(part.length);
    stream.write(part, (error) => {
      connection.writeDone(part.length, round);
      if (error) return;
      call.writesDone++;
      if (next < rest.length) writePart(next);
    });
    if (next === rest.length) onEnd();
  };
  writePart(0);
}
