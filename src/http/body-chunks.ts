import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';

/** Reading stops once so many bytes wait for next(). What node has read from the connection by then, up to 64 KiB, still comes. */
const READ_AHEAD_BYTES = 16 * 1024;

const NOTHING: Buffer = Buffer.alloc(0);
const BODY = Symbol('body');

interface TakenRequest extends IncomingMessage {
  [BODY]: BodyChunks;
}

/**
 * The body of a request, in the parts in which it comes. It is held in one piece of memory: node's buffer keeps an object of some
 * 400 bytes for each chunk, and a client may send 64 KiB in chunks of one byte. It replaces the request's push(), by which node puts
 * a body into that buffer. Node documents push() and _read().
 */
export class BodyChunks {
  /** block[0, length) holds the bytes that have come and that next() has not returned yet. */
  private block = NOTHING;
  private length = 0;
  /** Node was told to read no more until it is asked. */
  private isFull = false;
  private isStopped = false;
  private wake: () => void = () => {};

  /** @param signal next() rejects with its reason once it aborts */
  constructor(
    private readonly request: IncomingMessage,
    private readonly signal: AbortSignal,
  ) {
    const taken = request as TakenRequest;
    taken[BODY] = this;
    taken.push = pushToBody;
    const onMore = (): void => this.wake();
    request.on('end', onMore);
    signal.addEventListener('abort', onMore);
    const early = request.read() as Buffer | null;
    if (early) this.take(early);
    // Else "end" would never come: node's own buffer has nothing that anybody could read.
    request.resume();
  }

  /** Resolves with what has come; with undefined at the end of the body, or after stop(). */
  async next(): Promise<Buffer | undefined> {
    const { request, signal } = this;
    for (;;) {
      signal.throwIfAborted();
      if (this.isStopped) return undefined;
      if (this.length > 0) {
        const part = this.block.subarray(0, this.length);
        this.drop();
        return part;
      }
      if (request.readableEnded) return undefined;
      await new Promise<void>((resolve) => (this.wake = resolve));
    }
  }

  /** The rest of the body is read and dropped. */
  stop(): void {
    this.isStopped = true;
    this.drop();
    this.wake();
  }

  /** @returns true if more may come */
  take(chunk: Buffer): boolean {
    if (this.isStopped) return true;
    const length = this.length + chunk.length;
    if (this.length === 0) {
      this.block = chunk;
    } else {
      if (length > this.block.length) this.grow(length);
      this.block.set(chunk, this.length);
    }
    this.length = length;
    this.wake();
    this.isFull = length >= READ_AHEAD_BYTES;
    return !this.isFull;
  }

  private grow(length: number): void {
    // Not of node's pool, which one part would keep alive.
    const block = Buffer.allocUnsafeSlow(2 * length);
    this.block.copy(block, 0, 0, this.length);
    this.block = block;
  }

  private drop(): void {
    this.block = NOTHING;
    this.length = 0;
    if (!this.isFull) return;
    this.isFull = false;
    this.request._read(0);
  }
}

/** All requests share this function, because V8 would compile a closure again for each. */
function pushToBody(this: TakenRequest, chunk: Buffer | null): boolean {
  return chunk === null ? Readable.prototype.push.call(this, null) : this[BODY].take(chunk);
}
