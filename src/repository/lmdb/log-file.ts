import { type BigIntStats, closeSync, fdatasync, fstatSync, statSync } from 'node:fs';
import { promisify } from 'node:util';
import { openFile } from './access.js';
import { takeFile } from './directory-lock.js';

/**
 * The log's file, held open beside LMDB. Its lock keeps out other processes under whatever name they have for it: the
 * lock of the data directory is a file that can be removed, and the log's file can have a second name.
 */
export class LogFile {
  private constructor(
    readonly path: string,
    readonly descriptor: number,
    /** As it was opened. */
    readonly stats: BigIntStats,
  ) {}

  /** @param directory what is said to be in use, where another process has the file */
  static open(path: string, directory: string): LogFile {
    const file = openFile(path);
    if (file === undefined) throw new Error(`${path} is gone`);
    takeFile(file, directory);
    return new LogFile(path, file, fstatSync(file, { bigint: true }));
  }

  /**
   * Whether its path still leads to it: what is written to a file that was removed is gone with the process, and what
   * is written to one that was renamed is not found by the next.
   */
  isAtItsPath(): boolean {
    const found = statSync(this.path, { bigint: true, throwIfNoEntry: false });
    return found !== undefined && found.ino === this.stats.ino && found.dev === this.stats.dev;
  }

  /** Makes all that was written to it survive a power cut. */
  flush(): Promise<void> {
    return promisify(fdatasync)(this.descriptor);
  }

  close(): void {
    closeSync(this.descriptor);
  }
}
