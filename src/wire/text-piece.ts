import type { TextTarget, TextWriter } from './text-writer.js';

/** The bytes that are written between two looks at the piece's length. As JSON, they may take six times as much. */
const STEP_BYTES = 4 * 1024;

/**
 * Writes one piece of a long text, so that whoever sends it need not hold all of it. The text is written anew for each piece: what is in the
 * pieces before is passed over without a look at its bytes, and what does not fit any more is left out.
 */
export class TextPiece implements TextTarget {
  /** How much of the text is in the pieces up to this one, in bytes of what it is made of. */
  end = 0;
  /** True if the text goes on after this piece. */
  isFull = false;
  /** How much of what comes next is in the pieces before. */
  private passing = 0;
  private most = 0;

  constructor(private readonly out: TextWriter) {}

  /**
   * Begins the piece that follows the one that had this `end`; the first one with 0.
   *
   * @param most it ends in the middle of a string of JSON once it is as long (bytes) as this, or up to 24 KiB longer
   */
  begin(end: number, most: number): void {
    this.end = end;
    this.passing = end;
    this.isFull = false;
    this.most = most;
  }

  ascii(text: string): void {
    if (this.takesWhole(text.length)) this.out.ascii(text);
  }

  bytes(source: Buffer, start: number, end: number): void {
    if (this.takesWhole(end - start)) this.out.bytes(source, start, end);
  }

  quoted(source: Buffer, start: number, end: number): void {
    this.ascii('"');
    const passed = Math.min(this.passing, end - start);
    this.passing -= passed;
    for (let at = start + passed; at < end && !this.isFull;) {
      if (this.out.length >= this.most) {
        this.isFull = true;
        break;
      }
      const next = Math.min(at + STEP_BYTES, end);
      this.out.escaped(source, at, next);
      this.end += next - at;
      at = next;
    }
    this.ascii('"');
  }

  /** Returns true if so many bytes, which no piece divides, are to be written now. */
  private takesWhole(length: number): boolean {
    if (this.passing > 0) {
      this.passing -= length;
      return false;
    }
    if (this.isFull) return false;
    this.end += length;
    return true;
  }
}
