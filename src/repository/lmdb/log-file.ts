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
   * True if the file can be found at its path: what is written to a file that was removed is gone with the process, and
   * what is written to one that was renamed is not found by the next.
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

  /** The time of the file's last change, in ns. */
  ctime(): bigint {
    return fstatSync(this.descriptor, { bigint: true }).ctimeNs;
  }

  /** Makes all that was written to it survive a power cut. */
  flush(): Promise<void> {
    return promisify(fdatasync)(this.descriptor);
  }

  close(): void {
    closeSync(this.descriptor);
  }
}
