import { readSync } from 'node:fs';

/** Pages lie where they were written, those of one commit next to each other: so they are read many at a time. */
const CHUNK_BYTES = 64 * 1024;
const CHUNKS = 64;

/** Reads pages of a file in any order, and holds 4 MiB of it. */
export class PageReader {
  /** By their number in the file, the least recently used first. */
  private readonly chunks = new Map<number, Buffer>();

  constructor(
    private readonly file: number,
    private readonly pageBytes: number,
  ) {}

  /** A page, good until the next are asked for. What lies beyond the end of the file is zero. */
  page(number: number): Buffer {
    const start = number * this.pageBytes;
    const index = Math.floor(start / CHUNK_BYTES);
    const at = start - index * CHUNK_BYTES;
    return this.chunk(index).subarray(at, at + this.pageBytes);
  }

  /** Bytes that may go on over several pages; a copy. */
  bytes(position: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    readSync(this.file, bytes, 0, length, position);
    return bytes;
  }

  private chunk(index: number): Buffer {
    let chunk = this.chunks.get(index);
    if (chunk) {
      this.chunks.delete(index);
    } else {
      chunk = this.spare();
      const read = readSync(this.file, chunk, 0, CHUNK_BYTES, index * CHUNK_BYTES);
      chunk.fill(0, read);
    }
    this.chunks.set(index, chunk);
    return chunk;
  }

  private spare(): Buffer {
    if (this.chunks.size < CHUNKS) return Buffer.allocUnsafeSlow(CHUNK_BYTES);
    const [oldest] = this.chunks;
    this.chunks.delete(oldest[0]);
    return oldest[1];
  }
}
