import type { FrameSource, Frames } from '../../wire/frames.js';
import type { Call } from './call.js';

/** The largest single write, bytes: of a larger event, the client takes one part before the next is written. */
const PART_BYTES = 64 * 1024;

/**
 * Sends what a source has, one batch at a time: a slow client holds one batch, whatever is behind it. Resolves at
 * the end of the source; rejects with what the source failed with, or what the call's signal was aborted with.
 * Either way a source that was opened is closed.
 */
export function pump(source: FrameSource, call: Call): Promise<void> {
  return new Promise((resolve, reject) => {
    call.sendHeaders();
    new Pump(source, call, resolve, reject).start();
  });
}

/**
 * Makes no promise and no closure for a batch: docs/performance.md says what they cost.
 *
 * Its turn says who acts next:
 * - `source`: send() takes the next batch. The source calls onMore when it had none and has one now.
 * - `asked source`: the source has answered with a promise; onTaken() or fail() goes on.
 * - `client`: a write is under way; onOut() goes on.
 * - `connection`: too much is in flight on the connection; resume() goes on.
 * - `nobody`: it has ended.
 */
class Pump {
  private turn: 'source' | 'asked source' | 'client' | 'connection' | 'nobody' = 'source';
  /** The source called onMore while its promise was pending: it may have something that the promise missed. */
  private isMore = false;
  /** The rest of a batch that is larger than one write. */
  private unsent: Buffer | undefined;
  /** The write that is under way: its bytes, and what the connection calls its round. */
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
      this.reject(call.signal.reason);
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
    // A source that was asked is waited for: it sees the abort by itself, and may have to clean up.
    if (this.turn !== 'asked source') this.fail(this.call.signal.reason);
  }

  /** The connection has room again. */
  resume(): void {
    if (this.turn !== 'connection') return;
    this.turn = 'source';
    if (this.unsent) this.write(this.unsent);
    else this.send();
  }

  /** Sends what there is, until there is nothing, or the client or the connection has to take it first. */
  private readonly send = (): void => {
    if (this.turn === 'asked source') this.isMore = true;
    while (this.turn === 'source') {
      if (this.call.connection.outbound.isFull()) {
        this.waitForConnection();
        return;
      }
      try {
        const taken = this.source.take();
        if (taken instanceof Promise) {
          this.turn = 'asked source';
          this.isMore = false;
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
      this.fail(this.call.signal.reason);
      return;
    }
    this.turn = 'source';
    if (taken) this.write(taken.bytes);
    else if (this.source.isOver) this.end(this.resolve);
    else if (this.isMore) this.send();
  };

  /**
   * Writes frames straight to the HTTP/2 stream, without a copy; of a batch that is longer than a part, the first part.
   * grpc-js would take a write, an allocation and a copy for each message (grpc-node 2899). Its own headers and
   * trailers, which it still sends, queue on the same stream.
   */
  private write(bytes: Buffer): void {
    const { stream, connection } = this.call;
    const part = bytes.length > PART_BYTES ? bytes.subarray(0, PART_BYTES) : bytes;
    this.unsent = part === bytes ? undefined : bytes.subarray(PART_BYTES);
    this.turn = 'client';
    // grpc-js has ended the stream, at its deadline: the abort is to come.
    if (stream.writableEnded) return;
    this.writingBytes = part.length;
    this.round = connection.outbound.writeBegins(part.length);
    stream.write(part, this.onOut);
  }

  private readonly onOut = (error: Error | null | undefined): void => {
    const { call, unsent } = this;
    call.connection.writeDone(this.writingBytes, this.round);
    // With an error, the stream is gone: its close aborts the call, with the reason.
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
    this.unsent = undefined;
    this.call.connection.outbound.stopWaiting(this);
    this.call.signal.removeEventListener('abort', this);
    const closing = this.source.close();
    if (closing) closing.then(settle, settle);
    else settle();
  }
}
