import { closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { tryLock } from 'fs-native-extensions';
import { syncDirectory } from './new-log.js';

/**
 * Makes a directory, if need be, and takes it for this process: LMDB lets two processes write one log without
 * complaint. The lock is the kernel's, so it is gone with the process, however that ends; a PID file would not
 * be, and in containers every process is PID 1.
 *
 * @returns what gives the directory back
 * @throws an error that names the setting
 */
export function takeDirectory(directory: string): () => void {
  let file: number;
  try {
    const made = mkdirSync(directory, { recursive: true });
    if (made !== undefined) syncDirectory(dirname(made));
    file = openSync(join(directory, 'lock'), 'a+');
  } catch (cause) {
    throw new Error(
      `can't use the data directory ${directory} (FEED_DATA_DIR): ${(cause as Error).message}`,
      {
        cause,
      },
    );
  }
  if (!tryLock(file)) {
    closeSync(file);
    throw new Error(
      `another process uses the data directory ${directory}: stop it, or set FEED_DATA_DIR to another directory`,
    );
  }
  return () => closeSync(file);
}
