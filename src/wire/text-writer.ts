/** It starts with room for this many bytes, and goes back to it after a longer text. */
const USUAL_BYTES = 128 * 1024;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** How JSON writes each byte that can't stand as it is; undefined for all others. */
const ESCAPES: (string | undefined)[] = Array.from({ length: 256 }, (_, byte) =>
  byte < 0x20 || byte === QUOTE || byte === BACKSLASH
    ? JSON.stringify(String.fromCharCode(byte)).slice(1, -1)
    : undefined,
);
const MUST_ESCAPE = Uint8Array.from(ESCAPES, (escape) => (escape === undefined ? 0 : 1));
/** Up to this length, a loop costs less than a call of copy(). */
const LOOP_BYTES = 64;

/** Takes the parts of a text, one after another. */
export interface TextTarget {
  /** Writes a short text of ASCII. */
  ascii(text: string): void;
  /** Writes source[start, end), which is short, as it is. */
  bytes(source: Buffer, start: number, end: number): void;
  /** Writes source[start, end), which is valid UTF-8, as a string of JSON. */
  quoted(source: Buffer, start: number, end: number): void;
}

/**
 * Puts a text together out of bytes, without making strings of them: a text of many events would leave as much garbage as it is
 * long. One writer makes one text after another.
 */
export class TextWriter implements TextTarget {
  private target = Buffer.allocUnsafeSlow(USUAL_BYTES);
  private end = 0;

  ascii(text: string): void {
    this.ensure(text.length);
    const { target } = this;
    let { end } = this;
    for (let i = 0; i < text.length; i++) target[end++] = text.charCodeAt(i);
    this.end = end;
  }

  /** Writes source[start, end) as it is. */
  bytes(source: Buffer, start: number, end: number): void {
    this.ensure(end - start);
    if (end - start > LOOP_BYTES) {
      this.end += source.copy(this.target, this.end, start, end);
      return;
    }
    const { target } = this;
    let at = this.end;
    for (let i = start; i < end; i++) target[at++] = source[i];
    this.end = at;
  }

  quoted(source: Buffer, start: number, end: number): void {
    this.ascii('"');
    this.escaped(source, start, end);
    this.ascii('"');
  }

  /** Writes source[start, end) as a part of what stands between the quotes of a string of JSON. */
  escaped(source: Buffer, start: number, end: number): void {
    let from = start;
    for (let i = start; i < end; i++) {
      if (MUST_ESCAPE[source[i]] === 0) continue;
      this.bytes(source, from, i);
      this.ascii(ESCAPES[source[i]]!);
      from = i + 1;
    }
    this.bytes(source, from, end);
  }

  /** How many bytes were written. */
  get length(): number {
    return this.end;
  }

  /** Returns the first bytes of what was written (all by default), in memory of their own, and begins anew. */
  take(length = this.end): Buffer {
    // Not of node's pool: it may wait long for a client that does not read, and would keep all of the pool alive.
    const text = Buffer.allocUnsafeSlow(length);
    this.target.copy(text, 0, 0, length);
    this.end = 0;
    if (this.target.length > USUAL_BYTES) this.target = Buffer.allocUnsafeSlow(USUAL_BYTES);
    return text;
  }

  private ensure(more: number): void {
    const needed = this.end + more;
    if (needed <= this.target.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.target.length));
    this.target.copy(larger, 0, 0, this.end);
    this.target = larger;
  }
}
