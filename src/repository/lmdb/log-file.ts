import { type BigIntStats, closeSync, fdatasync, fstatSync, lstatSync } from 'node:fs';
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
    /** The file's stats when it was opened. */
    readonly stats: BigIntStats,
  ) {}

  /** @param directory the data directory, which the error names if another process has the file */
  static open(path: string, directory: string): LogFile {
    const file = openFile(path);
    if (file === undefined) throw new Error(`${path} is gone`);
    takeFile(file, directory);
    return new LogFile(path, file, fstatSync(file, { bigint: true }));
  }

  /**
   * Returns true if the file is still at its path. What is written to a removed file is lost when the process ends, and
   * the next process does not find a renamed one.
   */
  isAtItsPath(): boolean {
    try {
      const { ino, dev } = lstatSync(this.path, { bigint: true });
      return ino === this.stats.ino && dev === this.stats.dev;
    } catch {
      // ENOENT, or ELOOP, EACCES and the like: the next start would not find it either.
      return false;
    }
  }

  /** Returns the time of the file's last change, in nanoseconds. */
  ctime(): bigint {
    return fstatSync(this.descriptor, { bigint: true }).ctimeNs;
  }

  /** Makes everything that was written to the file survive a power cut. */
  flush(): Promise<void> {
    return promisify(fdatasync)(this.descriptor);
  }

  close(): void {
    closeSync(this.descriptor);
  }
}
