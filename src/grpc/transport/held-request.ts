/**
 * A single request as bytes. For as long as the call is open, grpc-js refers to what it has deserialized, and Nest to what it has passed to
 * the handler. So that is this, which refers to the bytes only until they are taken: those of a watch may be 256 KiB, for one topic.
 */
export class HeldRequest {
  constructor(private bytes: Buffer | undefined) {}

  /** Returns the bytes, once. */
  take(): Buffer {
    const bytes = this.bytes!;
    this.bytes = undefined;
    return bytes;
  }
}
