import type { ServerHttp2Stream } from 'node:http2';
import { Readable } from 'node:stream';

export interface ChunkTaker {
  /** @returns true if more may come */
  takeChunk(chunk: Buffer): boolean;
}

const TAKER = Symbol('taker');

interface TakenStream extends ServerHttp2Stream {
  [TAKER]: ChunkTaker;
}

/**
 * Passes the bytes of each DATA frame to `taker`. It replaces the stream's push(), by which node puts them into the stream's
 * buffer: reading that buffer costs an event and a tick for each frame (docs/performance.md, "DATA frames are taken in
 * push()"). Node documents push() and _read(). What has come before is passed on at once.
 *
 * @returns a function that asks for more, to be called after takeChunk() returned false
 */
export function takeChunks(stream: ServerHttp2Stream, taker: ChunkTaker): () => void {
  const taken = stream as TakenStream;
  taken[TAKER] = taker;
  taken.push = pushToTaker;
  // Over TLS, node may emit a stream only after its first bytes have come: while it writes, it reads on and emits later.
  if (stream.readableLength > 0)
    for (let chunk: Buffer | null; (chunk = stream.read() as Buffer | null) !== null;)
      taker.takeChunk(chunk);
  return () => stream._read(0);
}

/** All streams share this function, because V8 would compile a closure again for each new stream. */
function pushToTaker(this: TakenStream, chunk: Buffer | null): boolean {
  if (chunk !== null) return this[TAKER].takeChunk(chunk);
  // The end must reach the stream's buffer: node closes the stream only after it.
  return Readable.prototype.push.call(this, null);
}
