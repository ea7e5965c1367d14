import { fstatSync, read as readCallback, readSync } from 'node:fs';
import { promisify } from 'node:util';
import { newestMeta } from './lmdb-file.js';
import type { LogFile } from './log-file.js';
import type { Store } from './store.js';

/** The file is read in pieces of this size. */
const CHUNK_BYTES = 256 * 1024;
/** An LMDB file begins with two meta pages. */
const META_PAGES = 2;

const read = promisify(readCallback);

/**
 * The log's file as of its last commit, to be read while commits go on. Until end(), a read transaction keeps LMDB from
 * writing over the pages of that moment. So pages that later commits free are not used again either, and the file
 * grows by what is stored meanwhile.
 *
 * It is read by the file's descriptor, and not by LMDB's own copy (mdb_env_copy2), which needs as much free disk as the log has.
 */
export class Snapshot {
  readonly bytes: number;
  private readonly metas: Buffer;
  private readonly releasePages: () => void;
  private readonly bytesAtStart: number;
  private grown = 0;
  private isEnded = false;
  private why: Error | undefined;

  /** Call it while no commit is under way: both meta pages are then of the last commit and of the one before. */
  constructor(
    private readonly file: LogFile,
    store: Store,
  ) {
    this.releasePages = store.holdPages();
    try {
      const { pageBytes, lastPage } = newestMeta(file.descriptor);
      this.metas = Buffer.alloc(META_PAGES * pageBytes);
      readSync(file.descriptor, this.metas, 0, this.metas.length, 0);
      // LMDB may free the last pages before they were ever written.
      this.bytesAtStart = fstatSync(file.descriptor).size;
      this.bytes = Math.min((lastPage + 1) * pageBytes, this.bytesAtStart);
    } catch (error) {
      this.releasePages();
      throw error;
    }
  }

  /** By how much the file has grown, until end(). */
  get grownBytes(): number {
    // The descriptor may be that of another file once the log is closed.
    if (!this.isEnded) this.grown = fstatSync(this.file.descriptor).size - this.bytesAtStart;
    return this.grown;
  }

  /**
   * Yields the bytes. Throws what end() was called with, if that comes first.
   *
   * Pages that are not in use at that moment may be of a later one, or half written: nothing leads to them.
   */
  async *chunks(): AsyncGenerator<Buffer> {
    yield this.metas;
    for (let at = this.metas.length; at < this.bytes;) {
      this.throwIfEnded();
      const size = Math.min(CHUNK_BYTES, this.bytes - at);
      const { buffer, bytesRead } = await read(
        this.file.descriptor,
        Buffer.allocUnsafeSlow(size),
        0,
        size,
        at,
      );
      // The read may have been of another file, if the descriptor was closed meanwhile.
      this.throwIfEnded();
      if (bytesRead === 0) throw new Error(`${this.file.path} ends at ${at}, before ${this.bytes}`);
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  /** Lets LMDB write over the pages again. Calling it again does nothing. */
  end(why?: Error): void {
    if (this.isEnded) return;
    this.isEnded = true;
    this.why = why;
    this.releasePages();
  }

  private throwIfEnded(): void {
    if (this.isEnded) throw this.why ?? new Error('the snapshot is over');
  }
}
