import type { ServerHttp2Stream } from 'node:http2';
import {
  frame,
  FRAME_HEADER_BYTES,
  frameLength,
  MessageTooLargeError,
  MessageTruncatedError,
  type ReceivedFrames,
} from '../../wire/frames.js';
import { decompress } from './decompress.js';
import { type ChunkTaker, takeChunks } from './take-chunks.js';

/** So much of a stream is asked for ahead of its handler, and handed on at a time; beyond it, HTTP/2's window fills up. */
const READ_AHEAD_BYTES = 64 * 1024;

type Piece = Buffer | { readonly compressed: Buffer };

/**
 * The request stream of a call as batches of whole frames: everything that arrived in one turn of the event
 * loop is one batch. Takes the HTTP/2 stream over from grpc-js, which spends a promise and a pause on every
 * DATA frame, and clients in Go send a frame a message: 11-15 us an event become 3. Handing on the first
 * frame at once, without waiting for the turn's end, costs 8 uploads half of their throughput.
 *
 * Ends when the client half-closes, which is not a commit: a client that cancels may half-close first
 * (grpc-node 2583). Rejects with what the signal was aborted with.
 */
export class InboundFrames implements AsyncIterableIterator<ReceivedFrames>, ChunkTaker {
  private pieces: Piece[] = [];
  private bytes = 0;
  /** The beginning of a frame, in parts, and how many bytes are known to be needed. */
  private partial: Buffer[] = [];
  private partialBytes = 0;
  private neededBytes = 0;
  private ended = false;
  private error: unknown;
  private waiting:
    | {
        resolve: (
          result: IteratorResult<ReceivedFrames> | Promise<IteratorResult<ReceivedFrames>>,
        ) => void;
        reject: (error: unknown) => void;
      }
    | undefined;
  private flushing = false;
  private stopped = false;
  private readonly askForMore: () => void;

  constructor(
    private readonly stream: ServerHttp2Stream,
    private readonly encoding: string,
    private readonly maxMessageBytes: number,
    signal: AbortSignal,
  ) {
    stream.removeAllListeners('data');
    stream.removeAllListeners('end');
    this.askForMore = takeChunks(stream, this);
    stream.on('end', () => this.onEnd());
    stream.pause();
    signal.addEventListener('abort', () => this.end(signal.reason));
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<ReceivedFrames>> {
    if (this.pieces.length > 0) return Promise.resolve(this.take());
    if (this.error !== undefined) return Promise.reject(this.error);
    if (this.ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.resume();
    });
  }

  /** Takes no more; what still arrives is dropped. */
  return(): Promise<IteratorResult<ReceivedFrames>> {
    this.end(undefined);
    return Promise.resolve({ done: true, value: undefined });
  }

  /** @returns whether more may come */
  takeChunk(chunk: Buffer): boolean {
    if (this.ended) return true;
    this.split(chunk);
    if (this.bytes >= READ_AHEAD_BYTES) {
      this.stopped = true;
      this.flush();
      return !this.stopped;
    }
    if (this.waiting && !this.flushing) {
      this.flushing = true;
      setImmediate(() => this.flush());
    }
    return true;
  }

  private resume(): void {
    this.stream.resume();
    if (!this.stopped) return;
    this.stopped = false;
    this.askForMore();
  }

  private onEnd(): void {
    // A reset ends the stream as well, and a client that cancels may half-close right before it: its close
    // aborts the call, with the reason, within two turns of the event loop.
    setImmediate(() => setImmediate(() => this.endUnlessAborted()));
  }

  private endUnlessAborted(): void {
    if (this.ended) return;
    if (this.partial.length > 0) this.error = new MessageTruncatedError();
    this.ended = true;
    this.flush();
  }

  /** Ends now: what was not taken is dropped. */
  private end(error: unknown): void {
    this.ended = true;
    this.error = error;
    this.pieces = [];
    this.bytes = 0;
    this.partial = [];
    this.flush();
    this.resume();
  }

  private flush(): void {
    this.flushing = false;
    const waiting = this.waiting;
    if (!waiting) return;
    if (this.pieces.length > 0) waiting.resolve(this.take());
    else if (this.error !== undefined) waiting.reject(this.error);
    else if (this.ended) waiting.resolve({ done: true, value: undefined });
    else return;
    this.waiting = undefined;
  }

  private take(): IteratorResult<ReceivedFrames> | Promise<IteratorResult<ReceivedFrames>> {
    const [first] = this.pieces;
    if (!Buffer.isBuffer(first)) {
      // One at a time: it may be a thousand times as long as its bytes.
      this.pieces.shift();
      this.bytes -= first.compressed.length;
      return this.decompressed(first.compressed);
    }
    return { done: false, value: { pieces: this.takePlain() } };
  }

  /** Not all at once: a handler that was waited for may find a whole window of them. */
  private takePlain(): Buffer[] {
    let count = 0;
    let bytes = 0;
    for (const piece of this.pieces) {
      if (!Buffer.isBuffer(piece) || bytes >= READ_AHEAD_BYTES) break;
      bytes += piece.length;
      count++;
    }
    this.bytes -= bytes;
    const taken = this.pieces;
    this.pieces = taken.splice(count);
    return taken as Buffer[];
  }

  /** Takes the whole frames of a chunk, and keeps the beginning of the next one. */
  private split(chunk: Buffer): void {
    if (this.partial.length > 0) {
      this.partial.push(chunk);
      this.partialBytes += chunk.length;
      if (this.partialBytes < this.neededBytes) return;
      chunk = Buffer.concat(this.partial, this.partialBytes);
      this.partial = [];
    }
    let start = 0;
    let at = 0;
    let needed = FRAME_HEADER_BYTES;
    while (chunk.length - at >= FRAME_HEADER_BYTES) {
      const length = frameLength(chunk, at);
      if (length > this.maxMessageBytes) {
        this.add(chunk.subarray(start, at));
        this.ended = true;
        this.error = new MessageTooLargeError(length, this.maxMessageBytes);
        this.flush();
        return;
      }
      needed = FRAME_HEADER_BYTES + length;
      if (at + needed > chunk.length) break;
      if (chunk[at] !== 0) {
        this.add(chunk.subarray(start, at));
        this.add({ compressed: chunk.subarray(at, at + needed) });
        start = at + needed;
      }
      at += needed;
      needed = FRAME_HEADER_BYTES;
    }
    this.add(start === 0 && at === chunk.length ? chunk : chunk.subarray(start, at));
    if (at < chunk.length) {
      this.partial = [chunk.subarray(at)];
      this.partialBytes = chunk.length - at;
      this.neededBytes = needed;
    }
  }

  private add(piece: Piece): void {
    const bytes = Buffer.isBuffer(piece) ? piece.length : piece.compressed.length;
    if (bytes === 0) return;
    this.pieces.push(piece);
    this.bytes += bytes;
  }

  private async decompressed(framed: Buffer): Promise<IteratorResult<ReceivedFrames>> {
    const message = await decompress(framed, this.encoding, this.maxMessageBytes);
    return { done: false, value: { pieces: [frame(message)] } };
  }
}
