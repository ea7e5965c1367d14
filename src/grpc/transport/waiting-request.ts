import { constants, type ServerHttp2Stream } from 'node:http2';
import { Readable } from 'node:stream';
import type { InboundBudget } from './inbound-budget.js';

/** About what node and grpc-js take for a stream, in bytes, beside its headers and what it sends. */
const STREAM_BYTES = 8 * 1024;

const REQUEST = Symbol('waiting request');

interface CountedStream extends ServerHttp2Stream {
  [REQUEST]: WaitingRequest;
}

/**
 * A request that no handler has yet: grpc-js collects the request of a method that takes a single message, and calls the handler once
 * it is whole. Guards and limits come only then. So what such requests hold counts for the total of what clients send ahead, with the
 * streams themselves: a client may open thousands and never end one.
 *
 * InboundFrames counts for itself what comes to a request stream.
 */
class WaitingRequest {
  isWaiting = true;
  private held = 0;

  constructor(private readonly budget: InboundBudget) {}

  count(bytes: number): void {
    if (!this.isWaiting) return;
    this.held += bytes;
    this.budget.arrived(bytes);
  }

  end(): void {
    if (!this.isWaiting) return;
    this.isWaiting = false;
    this.budget.release(this.held, 0);
  }
}

/** Counts what a new stream takes until its request is whole, or requestTaken() is called. */
export function countRequest(
  stream: ServerHttp2Stream,
  budget: InboundBudget,
  headerBytes: number,
): void {
  const counted = stream as CountedStream;
  counted[REQUEST] = new WaitingRequest(budget);
  // Over TLS, the request may have come before node emits its stream, also its end.
  counted[REQUEST].count(STREAM_BYTES + headerBytes + stream.readableLength);
  counted.push = pushCounted;
  counted.on('end', onEnd).on('close', onEnd).on('finish', onAnswered);
}

/** Counts what grpc-js has made of a request beside what came of it: it decompresses a message before the request ends. */
export function countDecompressed(stream: ServerHttp2Stream, bytes: number): void {
  (stream as Partial<CountedStream>)[REQUEST]?.count(bytes);
}

/** A handler reads the stream itself, from its beginning. */
export function requestTaken(stream: ServerHttp2Stream): void {
  (stream as Partial<CountedStream>)[REQUEST]?.end();
}

// All streams share these functions, because V8 would compile closures again for each new stream.

function onEnd(this: CountedStream): void {
  this[REQUEST].end();
}

/** Where grpc-js has refused a request that is not whole, its stream would stay open for as long as its client likes (RFC 9113, 8.1). */
function onAnswered(this: CountedStream): void {
  if (!this[REQUEST].isWaiting) return;
  this.close(constants.NGHTTP2_NO_ERROR);
  // Node closes a stream only once all that came is read.
  this.resume();
}

/** Node documents push(). */
function pushCounted(this: CountedStream, chunk: Buffer | null): boolean {
  if (chunk !== null) this[REQUEST].count(chunk.length);
  return Readable.prototype.push.call(this, chunk);
}
