/**
 * gRPC puts a header in front of each message: a compression flag (1 byte) and the message's length (4 bytes,
 * big-endian). Header and message are a frame. The chat message {text: "hi"} takes four bytes, and its frame nine:
 *
 *     00  00 00 00 04  12 02 68 69
 *
 * A stream is a sequence of frames with nothing between them, so one buffer can hold many frames.
 */
export const FRAME_HEADER_BYTES = 5;

/** Received frames, uncompressed and in order. Each piece consists of whole frames. */
export interface ReceivedFrames {
  readonly pieces: readonly Buffer[];
}

/** Whole, uncompressed frames that are ready to be sent. */
export interface Frames {
  readonly bytes: Buffer;
  /** The number of frames, without heartbeats. */
  readonly count: number;
}

/**
 * Frames that a reader pulls, batch by batch. It does what an AsyncIterable does, but makes no promise where a batch
 * is at hand, because a promise costs more than sending a small batch. The reader calls open() once, then take() for
 * each batch, and close() in the end, also after an error.
 */
export interface FrameSource {
  /**
   * Acquires what the source needs: before this call it holds nothing that close() would have to release.
   *
   * @param onMore the source calls it when take() may have frames again after it had none; never during take() itself
   */
  open(onMore: () => void): void;

  /**
   * Returns the next frames, or undefined if there are none now. The reader calls it only when it can send what it
   * gets. A source that failed throws its error here, or rejects with it.
   */
  take(): Frames | undefined | Promise<Frames | undefined>;

  /** True once take() will never return frames again. */
  readonly isOver: boolean;

  /**
   * The reader ends the stream early, because of `reason`. Returns the error that it ends with: `reason`, if the source has no
   * such method. What take() has returned before is sent whole; open() may not have been called.
   */
  onAbort?(reason: unknown): unknown;

  /** Releases what open() acquired. */
  close(): void | Promise<void>;
}

/**
 * A client sent a message that can't be read. Whoever reads the message throws it, and so does the stream of the
 * message.
 */
export class BadMessageError extends Error {}

/**
 * A client sent a compressed message on a stream that announced no compression, or one that is not supported. The stream of the
 * message throws it. A message that its compression can't have made is a BadMessageError.
 */
export class BadCompressionError extends Error {
  constructor(
    readonly problem: 'not announced' | 'not supported',
    message: string,
  ) {
    super(message);
  }
}

/** Writes the header of a frame whose message has `length` bytes. */
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

/** Returns true for bytes that are one whole frame, as frame() makes it. */
export const isFrame = (bytes: Buffer): boolean =>
  bytes.length >= FRAME_HEADER_BYTES &&
  bytes[0] === 0 &&
  frameLength(bytes, 0) === bytes.length - FRAME_HEADER_BYTES;

/**
 * Returns a copy of a message with a frame header. The copy is not a slice of node's pool: it may wait long for a
 * client that does not read, and a slice would keep 64 KiB of the pool alive for all that time.
 */
export function frame(message: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafeSlow(FRAME_HEADER_BYTES + message.length);
  writeFrameHeader(framed, 0, message.length);
  framed.set(message, FRAME_HEADER_BYTES);
  return framed;
}

/** Yields each message in `bytes`, which holds whole frames. The messages share its memory. */
export function* messagesIn(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length;) {
    const end = at + FRAME_HEADER_BYTES + frameLength(bytes, at);
    yield bytes.subarray(at + FRAME_HEADER_BYTES, end);
    at = end;
  }
}
