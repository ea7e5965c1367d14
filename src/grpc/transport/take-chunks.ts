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
 * Has each DATA frame's bytes handed to `taker`, in place of the stream's push(), with which node puts them into the stream's
 * buffer. Reading them from that buffer, by "data" or by "readable", spends an event and a tick on each frame
 * (docs/performance.md, "DATA frames taken in push()"). push() and _read() are documented, for the two sides of a Readable.
 *
 * @returns a function that asks for more, to be called after takeChunk() returned false
 */
export function takeChunks(stream: ServerHttp2Stream, taker: ChunkTaker): () => void {
  const taken = stream as TakenStream;
  taken[TAKER] = taker;
  taken.push = pushToTaker;
  return () => stream._read(0);
}

/** One function for all streams, because V8 would compile a closure of each stream again when the next stream comes. */
function pushToTaker(this: TakenStream, chunk: Buffer | null): boolean {
  if (chunk !== null) return this[TAKER].takeChunk(chunk);
  // The end still goes the stream's own way: node waits for it before it closes the stream.
  return Readable.prototype.push.call(this, null);
}
