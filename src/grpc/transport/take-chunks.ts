import type { ServerHttp2Stream } from 'node:http2';

/**
 * Takes each DATA frame's bytes where node hands them to the stream: its push(). The stream's own way spends an
 * event and a tick on each frame; without it, 8 uploads cost 2.8 us an event instead of 3.4.
 *
 * @param take returns whether more may come
 * @returns what asks for more, after `take` returned false
 */
export function takeChunks(
  stream: ServerHttp2Stream,
  take: (chunk: Buffer) => boolean,
): () => void {
  const push = stream.push.bind(stream);
  // The end still goes the stream's own way: node waits for it before it closes the stream.
  stream.push = (chunk: Buffer | null) => (chunk === null ? push(null) : take(chunk));
  return () => stream._read(0);
}
