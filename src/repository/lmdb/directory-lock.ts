import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { tryLock } from 'fs-native-extensions';

/**
 * Takes a directory for this process: LMDB lets two processes write one log without complaint. The lock is
 * the kernel's, so it is gone with the process, however that ends; a PID file would not be, and in
 * containers every process is PID 1.
 *
 * @returns what gives the directory back
 */
export function lockDirectory(directory: string): () => void {
  const file = openSync(join(directory, 'lock'), 'a+');
  if (!tryLock(file)) {
    closeSync(file);
    throw new Error(
      `another process uses the data directory ${directory}: stop it, or set FEED_DATA_DIR to another directory`,
    );
  }
  return () => closeSync(file);
}
