import { BadMessageError } from '../wire/frames.js';

const NEWLINE = 0x0a;
const RETURN = 0x0d;
const NOTHING: Buffer = Buffer.alloc(0);

/** The memory of an unfinished line has at least this many bytes. When it is full, it grows by a quarter, but to no more than the longest line. */
const LEAST_HELD = 1024;
const GROWTH = 1.25;

/** Cuts chunks of bytes into lines, without their ends (LF or CRLF). */
export class Lines {
  /**
   * The beginning of a line whose end has not come is held[0, length). It is a copy: a part of a chunk would keep all of the chunk alive, and
   * many small chunks take much more memory than their bytes.
   */
  private held = NOTHING;
  private length = 0;

  /**
   * @param mostBytes the longest line
   * @param isWhole true if there is only one line, which may have line ends in it
   */
  constructor(
    private readonly mostBytes: number,
    private readonly isWhole = false,
  ) {}

  /** How much memory (bytes) the unfinished line takes. */
  get heldBytes(): number {
    return this.held.length;
  }

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

  /** Returns the last line, if it has no end; all of the body where it is one line, also if it is empty. */
  end(): Buffer | undefined {
    return this.length > 0 || this.isWhole ? this.finish(NOTHING) : undefined;
  }

  /** Forgets the unfinished line. */
  drop(): void {
    this.held = NOTHING;
    this.length = 0;
  }

  private finish(last: Buffer): Buffer {
    if (this.length > 0) {
      this.keep(last);
      last = this.held.subarray(0, this.length);
      this.drop();
    }
    this.check(last.length);
    return last.at(-1) === RETURN && !this.isWhole ? last.subarray(0, -1) : last;
  }

  private keep(part: Buffer): void {
    const length = this.length + part.length;
    this.check(length);
    if (length > this.held.length) {
      const larger = Math.ceil(Math.max(LEAST_HELD, length, this.held.length * GROWTH));
      const room = Math.min(larger, this.mostBytes);
      // Not of node's pool, which one part would keep alive.
      const grown = Buffer.allocUnsafeSlow(room);
      this.held.copy(grown, 0, 0, this.length);
      this.held = grown;
    }
    part.copy(this.held, this.length);
    this.length = length;
  }

  private check(bytes: number): void {
    if (bytes > this.mostBytes)
      throw new BadMessageError(`it takes more than ${this.mostBytes} bytes`);
  }
}
