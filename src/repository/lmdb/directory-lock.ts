import { closeSync, constants, mkdirSync, openSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { tryLock } from 'fs-native-extensions';
import { accessError } from './access.js';
import { syncDirectory } from './new-log.js';

const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;

/**
 * Makes a directory, if need be, and takes it for this process: LMDB lets two processes write one log without
 * complaint. The lock is the kernel's, so it is gone with the process, however that ends; a PID file would not
 * be, and in containers every process is PID 1.
 *
 * @returns what gives the directory back
 * @throws an error that names the setting
 */
export function takeDirectory(directory: string): () => void {
  let path = directory;
  let file: number;
  try {
    const made = mkdirSync(directory, { recursive: true });
    if (made !== undefined) syncDirectory(dirname(made));
    path = join(directory, 'lock');
    file = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW);
  } catch (cause) {
    const error = accessError(path, cause);
    throw new Error(`can't use the data directory ${directory} (FEED_DATA_DIR): ${error.message}`, {
      cause,
    });
  }
  takeFile(file, directory);
  return () => closeSync(file);
}

/** Takes an open file for this process, and closes it if another has it. */
export function takeFile(file: number, directory: string): void {
  if (tryLock(file)) return;
  closeSync(file);
  throw new Error(
    `another process uses the data directory ${directory}: stop it, or set FEED_DATA_DIR to another directory`,
  );
}
