import { FRAME_HEADER_BYTES, frameLength } from '../../wire/frames.js';

const NOTHING: Buffer = Buffer.alloc(0);

/**
 * Collects the message of a single request, in place of grpc-js's StreamDecoder. That one keeps the parts in which a message comes until the
 * call ends. Each part is a slice of all that node read from the socket at once, so one of a single byte may keep 64 KiB alive.
 *
 * This one copies the parts into memory of their own, and keeps nothing of a message that is whole.
 */
export class RequestDecoder {
  /** The message that is not whole, with its frame's header, is bytes[0, length). */
  private bytes = NOTHING;
  private length = 0;
  /** The length of that frame; until its header has come, the length of the header. */
  private end = FRAME_HEADER_BYTES;

  /** @param maxBytes the longest message */
  constructor(private readonly maxBytes: number) {}

  /**
   * Takes the bytes of a DATA frame. Returns the messages that are whole now, with their headers.
   *
   * @throws Error if a message is too long. grpc-js sends RESOURCE_EXHAUSTED with its text.
   */
  write(data: Buffer): Buffer[] {
    const messages: Buffer[] = [];
    for (let at = 0; at < data.length;) {
      const next = Math.min(at + this.end - this.length, data.length);
      this.append(data.subarray(at, next));
      at = next;
      if (this.length === FRAME_HEADER_BYTES) this.readHeader();
      if (this.length === this.end) messages.push(this.finish());
    }
    return messages;
  }

  private append(part: Buffer): void {
    const length = this.length + part.length;
    if (length > this.bytes.length) {
      // A client may announce a long message, and send little of it.
      const room = Math.min(Math.max(length, 2 * this.bytes.length), this.end);
      const grown = Buffer.allocUnsafeSlow(room);
      this.bytes.copy(grown, 0, 0, this.length);
      this.bytes = grown;
    }
    part.copy(this.bytes, this.length);
    this.length = length;
  }

  private readHeader(): void {
    const bytes = frameLength(this.bytes, 0);
    if (bytes > this.maxBytes)
      throw new Error(`a request of ${bytes} bytes is over the limit of ${this.maxBytes}`);
    this.end = FRAME_HEADER_BYTES + bytes;
  }

  private finish(): Buffer {
    const message = this.bytes;
    this.bytes = NOTHING;
    this.length = 0;
    this.end = FRAME_HEADER_BYTES;
    return message;
  }
}
