import { FeedError } from '../errors.js';

/** gRPC puts 5 bytes before each message: a flag (1: compressed), and the length as 32 bits, big-endian. */
const HEADER_BYTES = 5;

/** Returns a frame with this message: `hi` becomes 00 00 00 00 02 68 69. */
export function frame(message: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(frameBytes(message));
  writeFrame(bytes, 0, message);
  return bytes;
}

/** Returns the size of a message's frame, in bytes. */
export const frameBytes = (message: Uint8Array): number => HEADER_BYTES + message.length;

/** Writes the frame of a message into `target` at `offset`. Returns the offset after the frame. */
export function writeFrame(target: Buffer, offset: number, message: Uint8Array): number {
  target[offset] = 0;
  target.writeUInt32BE(message.length, offset + 1);
  target.set(message, offset + HEADER_BYTES);
  return offset + frameBytes(message);
}

/** Decodes a message. @throws FeedError DATA_LOSS for bytes that are no such message */
export function decode<T>(type: { decode(bytes: Uint8Array): T }, bytes: Uint8Array): T {
  try {
    return type.decode(bytes);
  } catch (cause) {
    throw new FeedError('DATA_LOSS', "the server sent a message that can't be read", { cause });
  }
}

/** Returns the offset after the first `count` frames of `frames`, which holds whole frames only. */
export function offsetAfter(frames: Buffer, count: number): number {
  let at = 0;
  for (let i = 0; i < count; i++) at += HEADER_BYTES + frames.readUInt32BE(at + 1);
  return at;
}

/** Cuts what a stream receives, in chunks of any size, into messages. */
export class MessageSplitter {
  /** The chunks that hold the beginning of a frame whose end has not come. */
  private rest: Buffer[] = [];
  private restBytes = 0;
  /** The size of that frame; the size of its header while the header has not come whole. */
  private wantedBytes = HEADER_BYTES;

  constructor(private readonly maxMessageBytes: number) {}

  /**
   * Returns the messages that `chunk` completes. They may share its memory.
   *
   * @throws FeedError for a message that is compressed or too large
   */
  push(chunk: Buffer): Buffer[] {
    this.rest.push(chunk);
    this.restBytes += chunk.length;
    // Chunks are joined only when they complete a frame, so a large message is copied once.
    if (this.restBytes < this.wantedBytes) return [];
    const bytes = this.rest.length === 1 ? chunk : Buffer.concat(this.rest);
    const messages: Buffer[] = [];
    let at = 0;
    this.wantedBytes = HEADER_BYTES;
    while (bytes.length - at >= HEADER_BYTES) {
      const end = at + HEADER_BYTES + this.lengthAt(bytes, at);
      if (end > bytes.length) {
        this.wantedBytes = end - at;
        break;
      }
      messages.push(bytes.subarray(at + HEADER_BYTES, end));
      at = end;
    }
    this.restBytes = bytes.length - at;
    this.rest = this.restBytes === 0 ? [] : [bytes.subarray(at)];
    return messages;
  }

  /** Reads the length in the frame header at an offset. */
  private lengthAt(bytes: Buffer, at: number): number {
    if (bytes[at] !== 0)
      throw new FeedError(
        'INTERNAL',
        'the server sent a compressed message, which was not asked for',
      );
    const length = bytes.readUInt32BE(at + 1);
    if (length > this.maxMessageBytes) {
      const message = `the server sent a message of ${length} bytes, over the limit of ${this.maxMessageBytes}`;
      throw new FeedError('DATA_LOSS', message);
    }
    return length;
  }
}
