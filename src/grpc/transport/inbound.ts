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
import { requestTaken } from './waiting-request.js';

/** When whole frames of this many bytes wait for the handler, reading stops. Pieces have about this length. */
const READ_AHEAD_BYTES = 64 * 1024;
/** At this many chunks they are copied before the turn ends: each is an object of node's and may hold only one byte. */
const MAX_CHUNKS = 256;

const NOTHING: Buffer = Buffer.alloc(0);

/** Whole frames that wait for the handler. */
interface Piece {
  readonly bytes: Buffer;
  readonly hasCompressed: boolean;
}

type Next = IteratorResult<ReceivedFrames>;

/**
 * The request stream of a call, as batches of whole frames. It reads the HTTP/2 stream in place of grpc-js, which makes a
 * promise and a pause for every DATA frame, while clients in Go send a DATA frame for each message. All that arrives in one
 * turn of the event loop becomes one batch (docs/performance.md, "All DATA frames of one turn").
 *
 * Bytes pass through these stages:
 * - *chunks*: parts of what node read from the socket at once, up to 64 KiB, all of which a kept chunk would keep alive;
 * - *block*: at the end of the turn gather() copies them into the stream's own memory, and finds the frames that are whole;
 * - *pieces*: seal() makes a piece of the block's whole frames when the handler asks for a batch or they are long enough;
 * - *handed*: the batch that the handler works on. It is released from the budget at the handler's next call of next().
 *
 * It ends when the client half-closes. That is not a commit: a client that cancels may half-close first (grpc-node 2583).
 * If the signal aborts, what was not handed is discarded and next() rejects with the signal's reason.
 */
export class InboundFrames implements AsyncIterableIterator<ReceivedFrames>, ChunkTaker {
  /** Chunks that arrived in this turn of the event loop. */
  private chunks: Buffer[] = [];
  private chunkBytes = 0;
  /** Its first wholeBytes are whole frames. The start of the next frame goes up to blockBytes, and the rest is free. */
  private block = NOTHING;
  private blockBytes = 0;
  private wholeBytes = 0;
  /** True if one of the block's whole frames is compressed. */
  private hasCompressed = false;
  /** The length of the unfinished frame; until its header has arrived, the length of the header. */
  private unfinishedBytes = FRAME_HEADER_BYTES;
  private pieces: Piece[] = [];
  private pieceBytes = 0;
  private handedBytes = 0;
  /** The handler called return(). */
  private hasReturned = false;

  /** Nothing that arrives is taken any more. The handler still gets the pieces, and then `error`, if there is one. */
  private ended = false;
  private error: unknown;
  /** The handler's call of next() that waits for a batch. */
  private pendingNext:
    | { resolve: (result: Next | Promise<Next>) => void; reject: (error: unknown) => void }
    | undefined;
  /** flush() runs at the end of this turn. */
  private flushing = false;
  /** takeChunk() has told node to send no more chunks until askForMore() is called. */
  private stopped = false;
  private readonly askForMore: () => void;

  constructor(
    private readonly stream: ServerHttp2Stream,
    private readonly encoding: string,
    private readonly maxMessageBytes: number,
    /** How many bytes more than that a message may have. */
    private readonly messageRoom: number,
    signal: AbortSignal,
    private readonly budget: InboundBudget,
    /** Is told when bytes came. */
    private readonly call: { receivedAt: number },
  ) {
    requestTaken(stream);
    takeReading(stream);
    this.askForMore = takeChunks(stream, this);
    stream.on('end', () => this.onEnd());
    stream.pause();
    signal.addEventListener('abort', () => this.end(signal.reason));
    // Also if the handler was never called, or is done, so that the signal never aborts.
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
      this.pendingNext = { resolve, reject };
      this.resume();
    });
  }

  /** The handler stops reading: what has arrived and what still arrives is discarded. */
  return(): Promise<Next> {
    this.hasReturned = true;
    this.releaseHanded();
    this.end(undefined);
    return Promise.resolve({ done: true, value: undefined });
  }

  takeChunk(chunk: Buffer): boolean {
    if (this.ended) return true;
    this.chunks.push(chunk);
    this.chunkBytes += chunk.length;
    this.budget.arrived(chunk.length);
    const isMuch = this.blockBytes + this.chunkBytes >= READ_AHEAD_BYTES;
    if (isMuch || this.chunks.length === MAX_CHUNKS) this.gather();
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
    // If the client reset the stream, perhaps right after a half-close, "close" aborts the call within two turns of the event
    // loop. Then the abort's reason is the end, and not this one.
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

  /** Ends the stream at once and discards what the handler has not taken. */
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
    const { pendingNext } = this;
    if (!pendingNext) return;
    const next = this.take();
    if (next) pendingNext.resolve(next);
    else if (this.error !== undefined) pendingNext.reject(this.error);
    else if (this.ended) pendingNext.resolve({ done: true, value: undefined });
    else return;
    this.pendingNext = undefined;
  }

  private take(): Next | Promise<Next> | undefined {
    if (this.pieces.length === 0) {
      this.gather();
      this.seal();
    }
    const piece = this.pieces.shift();
    if (!piece) {
      // Nobody gets what came of a message that is too long.
      if (this.error !== undefined) this.drop();
      return undefined;
    }
    const { bytes, hasCompressed } = piece;
    const end = hasCompressed ? this.endOfBatch(bytes) : bytes.length;
    // A compressed frame is a batch by itself, because its message may be a thousand times longer.
    if (end < bytes.length) this.pieces.unshift({ bytes: bytes.subarray(end), hasCompressed });
    this.pieceBytes -= end;
    this.handedBytes = end;
    const handed = bytes.subarray(0, end);
    return handed[0] === 0
      ? { done: false, value: { pieces: [handed] } }
      : this.decompressed(handed);
  }

  /** Returns where the first batch ends: the uncompressed frames at the beginning, or else a single compressed frame. */
  private endOfBatch(bytes: Buffer): number {
    let end = 0;
    do end += FRAME_HEADER_BYTES + frameLength(bytes, end);
    while (bytes[0] === 0 && end < bytes.length && bytes[end] === 0);
    return end;
  }

  private releaseHanded(): void {
    if (this.handedBytes > 0) this.budget.release(this.handedBytes, this.handedBytes);
    this.handedBytes = 0;
  }

  /** Copies the chunks to the end of the block, and finds the frames that are whole now. */
  private gather(): void {
    const { chunks } = this;
    if (chunks.length === 0) return;
    this.call.receivedAt = performance.now();
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
    // The block doubles, so that a message in many small parts is not copied for each of them, but never beyond its end.
    const most = Math.max(READ_AHEAD_BYTES, this.wholeBytes + this.unfinishedBytes);
    const room = this.blockBytes === 0 ? bytes : Math.min(2 * this.block.length, most);
    const block = Buffer.allocUnsafeSlow(Math.max(bytes, room));
    this.block.copy(block, 0, 0, this.blockBytes);
    this.block = block;
  }

  private findWhole(): void {
    const before = this.wholeBytes;
    this.unfinishedBytes = FRAME_HEADER_BYTES;
    while (this.blockBytes - this.wholeBytes >= FRAME_HEADER_BYTES) {
      const length = frameLength(this.block, this.wholeBytes);
      if (length > this.maxMessageBytes + this.messageRoom) {
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
    this.budget.completed(this.wholeBytes - before);
    if (this.wholeBytes >= READ_AHEAD_BYTES) this.seal();
  }

  /** Makes a piece of the block's whole frames. The unfinished frame moves to a new block. */
  private seal(): void {
    const { block, wholeBytes, hasCompressed } = this;
    if (wholeBytes === 0) return;
    this.pieces.push({ bytes: block.subarray(0, wholeBytes), hasCompressed });
    this.pieceBytes += wholeBytes;
    // A copy: if they shared memory, the handler's batch and the unfinished frame would keep each other alive.
    const rest = block.subarray(wholeBytes, this.blockBytes);
    this.block = rest.length === 0 ? NOTHING : Buffer.allocUnsafeSlow(rest.length);
    this.blockBytes = rest.copy(this.block);
    this.wholeBytes = 0;
    this.hasCompressed = false;
  }

  private async decompressed(framed: Buffer): Promise<Next> {
    let bytes: Buffer;
    try {
      const { encoding, maxMessageBytes, messageRoom } = this;
      bytes = frame(await decompress(framed, encoding, maxMessageBytes, messageRoom));
    } catch (error) {
      // A handler that learns of it here may neither ask again nor call return(): "for await" does not.
      void this.return();
      throw error;
    }
    // After return(), nothing would release these bytes.
    if (!this.hasReturned) {
      const more = bytes.length - framed.length;
      this.budget.arrived(more);
      this.budget.completed(more);
      this.handedBytes += more;
    }
    return { done: false, value: { pieces: [bytes] } };
  }
}
