const LF = 10;

/** Cuts a stream of UTF-8 into lines. A line is a string of its own, and does not keep the chunk that it came in alive. */
export class Lines {
  private readonly decoder = new TextDecoder();
  /** The beginning of a line whose end has not come. */
  private rest: Uint8Array[] = [];

  /** Returns the lines that end within this chunk, without their line feeds. */
  take(chunk: Uint8Array): string[] {
    const lines: string[] = [];
    let start = 0;
    for (let end = chunk.indexOf(LF); end >= 0; end = chunk.indexOf(LF, start)) {
      lines.push(this.line(chunk.subarray(start, end)));
      start = end + 1;
    }
    if (start < chunk.length) this.rest.push(chunk.subarray(start));
    return lines;
  }

  private line(end: Uint8Array): string {
    if (this.rest.length === 0) return this.decoder.decode(end);
    const parts = this.rest;
    this.rest = [];
    return (
      parts.map((part) => this.decoder.decode(part, { stream: true })).join('') +
      this.decoder.decode(end)
    );
  }
}
