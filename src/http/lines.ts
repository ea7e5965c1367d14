import { BadMessageError } from '../wire/frames.js';

const NEWLINE = 0x0a;
const RETURN = 0x0d;

/** Cuts chunks of bytes into lines, without their ends (LF or CRLF). */
export class Lines {
  /** The beginning of a line whose end has not come. */
  private parts: Buffer[] = [];
  /** Its length. */
  unfinishedBytes = 0;

  /**
   * @param mostBytes the longest line
   * @param isWhole true if there is only one line, which may have line ends in it
   */
  constructor(
    private readonly mostBytes: number,
    private readonly isWhole = false,
  ) {}

  /**
   * Yields the lines that end in a chunk.
   *
   * @throws BadMessageError if a line is too long
   */
  *push(chunk: Buffer): Generator<Buffer> {
    let start = 0;
    for (;;) {
      const end = this.isWhole ? -1 : chunk.indexOf(NEWLINE, start);
      if (end < 0) break;
      yield this.finish(chunk.subarray(start, end));
      start = end + 1;
    }
    if (start < chunk.length) this.keep(chunk.subarray(start));
  }

  /** Returns the last line, if it has no end. */
  end(): Buffer | undefined {
    return this.unfinishedBytes > 0 ? this.finish(Buffer.alloc(0)) : undefined;
  }

  /** Forgets the unfinished line. */
  drop(): void {
    this.parts = [];
    this.unfinishedBytes = 0;
  }

  private finish(last: Buffer): Buffer {
    const line = this.parts.length === 0 ? last : Buffer.concat([...this.parts, last]);
    this.drop();
    this.check(line.length);
    return line.at(-1) === RETURN && !this.isWhole ? line.subarray(0, -1) : line;
  }

  private keep(part: Buffer): void {
    this.unfinishedBytes += part.length;
    this.check(this.unfinishedBytes);
    this.parts.push(part);
  }

  private check(bytes: number): void {
    if (bytes > this.mostBytes)
      throw new BadMessageError(`it takes more than ${this.mostBytes} bytes`);
  }
}
