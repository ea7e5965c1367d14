import type { ServerHttp2Stream } from 'node:http2';
import {
  BadMessageError,
  frame,
  FRAME_HEADER_BYTES,
  frameLength,
  type ReceivedFrames,
} from '../../wire/frames.js';
import { decompress, tooLarge } from './decompress.js';
import { takeReading } from './grpc-js.js';
import type { InboundBudget } from './inbound-budget.js';
import { type ChunkTaker, takeChunks } from './take-chunks.js';

/** So much of a stream is asked for ahead of its handler, and handed on at a time; beyond it, HTTP/2's window fills up. */
const READ_AHEAD_BYTES = 64 * 1024;
/** The most chunks that wait to be copied. Each is an object of node's, and a client may send one byte in each. */
const MOST_CHUNKS = 256;

const NOTHING: Buffer = Buffer.alloc(0);

/** Whole frames, of which some may be compressed. */
interface Piece {
  readonly bytes: Buffer;
  readonly hasCompressed: boolean;
}

type Next = IteratorResult<ReceivedFrames>;

/**
 * The request stream of a call as batches of whole frames: everything that arrived in one turn of the event
 * loop is one batch. It takes the HTTP/2 stream over from grpc-js, which spends a promise and a pause on every
 * DATA frame, while clients in Go send a frame a message. Handing on the first frame at once, without waiting for the
 * turn's end, halves the throughput of uploads (docs/performance.md, "DATA frames of one turn of the event loop together").
 *
 * Node hands over each chunk as a part of all that it read from the socket at once, up to 64 KiB. Kept, a chunk of a
 * few bytes would keep all of that. So at the end of the turn its bytes are copied into memory of the stream's own,
 * which is as long as they are, or up to twice as long while a message is unfinished.
 *
 * Ends when the client half-closes, which is not a commit: a client that cancels may half-close first
 * (grpc-node 2583). Rejects with what the signal was aborted with.
 */
export class InboundFrames implements AsyncIterableIterator<ReceivedFrames>, ChunkTaker {
  /** Chunks that arrived in this turn of the event loop. */
  private chunks: Buffer[] = [];
  private chunkBytes = 0;
  /** Bytes that arrived before. The first wholeBytes are whole frames; up to blockBytes follows the start of the next one. */
  private block = NOTHING;
  private blockBytes = 0;
  private wholeBytes = 0;
  private hasCompressed = false;
  /** How long the unfinished frame is, with its header, as far as that is known. */
  private unfinishedBytes = FRAME_HEADER_BYTES;
  /** Whole frames that arrived before those of the block, and their bytes. */
  private pieces: Piece[] = [];
  private pieceBytes = 0;
  /** Bytes of the batch that the handler works on. They are released when it asks for more. */
  private handedBytes = 0;
  private isLeft = false;

  private ended = false;
  private error: unknown;
  private waiting:
    | { resolve: (result: Next | Promise<Next>) => void; reject: (error: unknown) => void }
    | undefined;
  private flushing = false;
  private stopped = false;
  private readonly askForMore: () => void;

  constructor(
    private readonly stream: ServerHttp2Stream,
    private readonly encoding: string,
    private readonly maxMessageBytes: number,
    signal: AbortSignal,
    private readonly budget: InboundBudget,
  ) {
    takeReading(stream);
    this.askForMore = takeChunks(stream, this);
    stream.on('end', () => this.onEnd());
    stream.pause();
    signal.addEventListener('abort', () => this.end(signal.reason));
    // The handler may never have been called, and the signal is not aborted once it has returned.
    stream.on('close', () => this.drop());
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Next> {
    this.releaseHanded();
    const next = this.take();
    if (next) return Promise.resolve(next);
    if (this.error !== undefined) return Promise.reject(this.error);
    if (this.ended) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.resume();
    });
  }

  /** Takes no more; what still arrives is dropped. */
  return(): Promise<Next> {
    this.isLeft = true;
    this.releaseHanded();
    this.end(undefined);
    return Promise.resolve({ done: true, value: undefined });
  }

  /** @returns whether more may come */
  takeChunk(chunk: Buffer): boolean {
    if (this.ended) return true;
    this.chunks.push(chunk);
    this.chunkBytes += chunk.length;
    this.budget.arrived(chunk.length);
    const isMuch = this.blockBytes + this.chunkBytes >= READ_AHEAD_BYTES;
    if (isMuch || this.chunks.length === MOST_CHUNKS) this.gather();
    if (this.pieceBytes + this.wholeBytes >= READ_AHEAD_BYTES) {
      this.stopped = true;
      this.flush();
      return !this.stopped;
    }
    if (!this.flushing) {
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
    this.gather();
    if (this.blockBytes > this.wholeBytes)
      this.error ??= new BadMessageError('the stream ended inside a message');
    this.ended = true;
    this.flush();
  }

  /** Ends the stream at once, and discards what its handler has not taken. */
  private end(error: unknown): void {
    this.ended = true;
    this.error = error;
    this.drop();
    this.flush();
    this.resume();
  }

  private drop(): void {
    const whole = this.pieceBytes + this.wholeBytes;
    const bytes = this.pieceBytes + this.blockBytes + this.chunkBytes;
    this.ended = true;
    this.chunks = [];
    this.pieces = [];
    this.block = NOTHING;
    this.chunkBytes = this.pieceBytes = this.blockBytes = this.wholeBytes = 0;
    if (bytes > 0) this.budget.release(bytes, whole);
  }

  private flush(): void {
    this.flushing = false;
    this.gather();
    const { waiting } = this;
    if (!waiting) return;
    const next = this.take();
    if (next) waiting.resolve(next);
    else if (this.error !== undefined) waiting.reject(this.error);
    else if (this.ended) waiting.resolve({ done: true, value: undefined });
    else return;
    this.waiting = undefined;
  }

  private take(): Next | Promise<Next> | undefined {
    if (this.pieces.length === 0) {
      this.gather();
      this.seal();
    }
    const piece = this.pieces.shift();
    if (!piece) return undefined;
    const { bytes, hasCompressed } = piece;
    const end = hasCompressed ? this.endOfFirst(bytes) : bytes.length;
    // Compressed ones are handed on one at a time: each may be a thousand times as long as its bytes.
    if (end < bytes.length) this.pieces.unshift({ bytes: bytes.subarray(end), hasCompressed });
    this.pieceBytes -= end;
    this.handedBytes = end;
    const handed = bytes.subarray(0, end);
    return handed[0] === 0
      ? { done: false, value: { pieces: [handed] } }
      : this.decompressed(handed);
  }

  /** Where the plain frames at the beginning end, or the first frame, where that is a compressed one. */
  private endOfFirst(bytes: Buffer): number {
    let end = 0;
    do end += FRAME_HEADER_BYTES + frameLength(bytes, end);
    while (bytes[0] === 0 && end < bytes.length && bytes[end] === 0);
    return end;
  }

  private releaseHanded(): void {
    if (this.handedBytes > 0) this.budget.release(this.handedBytes, this.handedBytes);
    this.handedBytes = 0;
  }

  /** Copies what arrived in this turn to what arrived before, and finds the frames that are whole now. */
  private gather(): void {
    const { chunks } = this;
    if (chunks.length === 0) return;
    const bytes = this.blockBytes + this.chunkBytes;
    if (bytes > this.block.length) this.grow(bytes);
    for (const chunk of chunks) {
      this.block.set(chunk, this.blockBytes);
      this.blockBytes += chunk.length;
    }
    this.chunks = [];
    this.chunkBytes = 0;
    this.findWhole();
  }

  private grow(bytes: number): void {
    // A message that comes a little at a time would be copied again and again. So the block doubles, up to the message's end.
    const toCome = Math.max(READ_AHEAD_BYTES, this.wholeBytes + this.unfinishedBytes);
    const room = this.blockBytes === 0 ? bytes : Math.min(2 * this.block.length, toCome);
    const block = Buffer.allocUnsafeSlow(Math.max(bytes, room));
    this.block.copy(block, 0, 0, this.blockBytes);
    this.block = block;
  }

  private findWhole(): void {
    const before = this.wholeBytes;
    this.unfinishedBytes = FRAME_HEADER_BYTES;
    while (this.blockBytes - this.wholeBytes >= FRAME_HEADER_BYTES) {
      const length = frameLength(this.block, this.wholeBytes);
      if (length > this.maxMessageBytes) {
        this.ended = true;
        this.error = tooLarge(length, this.maxMessageBytes);
        break;
      }
      this.unfinishedBytes = FRAME_HEADER_BYTES + length;
      if (this.wholeBytes + this.unfinishedBytes > this.blockBytes) break;
      if (this.block[this.wholeBytes] !== 0) this.hasCompressed = true;
      this.wholeBytes += this.unfinishedBytes;
      this.unfinishedBytes = FRAME_HEADER_BYTES;
    }
    this.budget.finished(this.wholeBytes - before);
    if (this.wholeBytes >= READ_AHEAD_BYTES) this.seal();
  }

  /** Makes a piece of the whole frames of the block. */
  private seal(): void {
    const { block, wholeBytes, hasCompressed } = this;
    if (wholeBytes === 0) return;
    this.pieces.push({ bytes: block.subarray(0, wholeBytes), hasCompressed });
    this.pieceBytes += wholeBytes;
    // In memory of its own, or the handler's batch and the next message would keep each other.
    const rest = block.subarray(wholeBytes, this.blockBytes);
    this.block = rest.length === 0 ? NOTHING : Buffer.allocUnsafeSlow(rest.length);
    this.blockBytes = rest.copy(this.block);
    this.wholeBytes = 0;
    this.hasCompressed = false;
  }

  private async decompressed(framed: Buffer): Promise<Next> {
    const bytes = frame(await decompress(framed, this.encoding, this.maxMessageBytes));
    if (!this.isLeft) {
      const more = bytes.length - framed.length;
      this.budget.arrived(more);
      this.budget.finished(more);
      this.handedBytes += more;
    }
    return { done: false, value: { pieces: [bytes] } };
  }
}
