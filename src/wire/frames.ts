/**
 * gRPC's framing of messages: a compression flag (1 byte), the length (4 bytes, big-endian), the
 * message. A stream is nothing but such frames, so several of them can be handed on as one buffer.
 */
export const FRAME_HEADER_BYTES = 5;

/** Whole, uncompressed frames as they came in, in order. A piece never ends inside a frame. */
export interface ReceivedFrames {
  readonly pieces: readonly Buffer[];
}

/** Whole, uncompressed frames to send as they are, in one buffer. */
export interface Frames {
  readonly bytes: Buffer;
  readonly count: number;
}

/**
 * Frames that a reader pulls without a promise for each batch, which costs more than to send a small one. Another way
 * to say AsyncIterable: to be opened once, and closed whatever ends the reading.
 */
export interface FrameSource {
  /**
   * Nothing is held before.
   *
   * @param onMore called when take() had nothing and may have something now; not from within take()
   */
  open(onMore: () => void): void;

  /**
   * What is next, once the reader can do with it; undefined if there is nothing now. Throws, or rejects with, what the
   * source failed with.
   */
  take(): Frames | undefined | Promise<Frames | undefined>;

  /** Whether there will be nothing any more. */
  readonly isOver: boolean;

  /** Lets go of what open() took; what is asked for is not taken any more. */
  close(): void | Promise<void>;
}

/** A message that a client sent can't be read. Thrown by what reads it, and by the stream that it is in. */
export class BadMessageError extends Error {}

export function writeFrameHeader(target: Buffer, offset: number, length: number): void {
  target[offset] = 0;
  target[offset + 1] = length >>> 24;
  target[offset + 2] = length >>> 16;
  target[offset + 3] = length >>> 8;
  target[offset + 4] = length;
}

/** The length of the message whose frame starts at `offset`. */
export function frameLength(source: Buffer, offset: number): number {
  return (
    ((source[offset + 1] << 24) |
      (source[offset + 2] << 16) |
      (source[offset + 3] << 8) |
      source[offset + 4]) >>>
    0
  );
}

/**
 * One message in a frame and memory of its own: as a part of node's pool it would keep 64 KiB, for as long as its client
 * does not read it.
 */
export function frame(message: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafeSlow(FRAME_HEADER_BYTES + message.length);
  writeFrameHeader(framed, 0, message.length);
  framed.set(message, FRAME_HEADER_BYTES);
  return framed;
}

/** The messages in `bytes`, which holds whole frames. */
export function* messagesIn(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length;) {
    const end = at + FRAME_HEADER_BYTES + frameLength(bytes, at);
    yield bytes.subarray(at + FRAME_HEADER_BYTES, end);
    at = end;
  }
}
