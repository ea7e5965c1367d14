import { readSync } from 'node:fs';

/** The reader reads this many bytes at a time: pages that one commit wrote lie together, and are asked for together. */
const CHUNK_BYTES = 64 * 1024;
/** The reader holds this many chunks: 4 MiB of the file. */
const MAX_CHUNKS = 64;

/** Reads pages of a file in any order, through a cache. */
export class PageReader {
  /** Chunks of the file, by index: chunk 2 begins at byte 2 * CHUNK_BYTES. The least recently used one comes first. */
  private readonly chunks = new Map<number, Buffer>();

  constructor(
    private readonly file: number,
    private readonly pageBytes: number,
  ) {}

  /** Returns a view of a page. The next call may overwrite it. Bytes beyond the end of the file are 0. */
  page(number: number): Buffer {
    const start = number * this.pageBytes;
    const index = Math.floor(start / CHUNK_BYTES);
    const at = start - index * CHUNK_BYTES;
    return this.chunk(index).subarray(at, at + this.pageBytes);
  }

  /** Returns a copy of bytes, which may lie on several pages. */
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
      chunk = this.takeBuffer();
      const read = readSync(this.file, chunk, 0, CHUNK_BYTES, index * CHUNK_BYTES);
      chunk.fill(0, read);
    }
    this.chunks.set(index, chunk); // the last one in the map's order: the most recently used
    return chunk;
  }

  /** Returns a buffer to read into: a new one, or that of the least recently used chunk, which it drops. */
  private takeBuffer(): Buffer {
    if (this.chunks.size < MAX_CHUNKS) return Buffer.allocUnsafeSlow(CHUNK_BYTES);
    const [[index, buffer]] = this.chunks;
    this.chunks.delete(index);
    return buffer;
  }
}
