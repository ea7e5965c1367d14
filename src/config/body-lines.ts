/** In JSON, a byte of an event takes up to this many (`\u0001`), and the names and signs of the event take up to this many more. */
const JSON_BYTES_PER_BYTE = 6;
const JSON_BYTES_BESIDE = 16 * 1024;

/** The unfinished lines of all bodies over HTTP may take one part in this many of FEED_RECEIVE_BYTES. */
const LINES_SHARE = 4;

/** Returns how long (bytes) a line of a body over HTTP may be, for events of up to `maxEventBytes`. */
export function longestLine(maxEventBytes: number): number {
  return JSON_BYTES_PER_BYTE * maxEventBytes + JSON_BYTES_BESIDE;
}

/** Returns how many bytes the unfinished lines of all bodies may take together. */
export function mostUnfinishedLines(receiveBytes: number): number {
  return receiveBytes / LINES_SHARE;
}

/**
 * Returns the least FEED_RECEIVE_BYTES with which no event of up to `maxEventBytes` is refused for its size alone: with less, its
 * line could take more over HTTP than all lines together may. Over gRPC, an event takes no more than its own bytes.
 */
export function leastReceiveBytes(maxEventBytes: number): number {
  return LINES_SHARE * longestLine(maxEventBytes);
}
