import { closeSync, constants, mkdirSync, openSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { tryLock } from 'fs-native-extensions';
import { accessError } from './access.js';
import { syncDirectory } from './new-log.js';

const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;

/**
 * Makes a directory if there is none, and locks it for this process, because LMDB lets two processes write one log
 * without complaint. The kernel releases the lock when the process ends, however it ends. A PID file would stay, and
 * in containers every process is PID 1.
 *
 * @returns a function that unlocks the directory
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

/** Locks an open file for this process. If another process has locked it, closes it and throws. */
export function takeFile(file: number, directory: string): void {
  if (tryLock(file)) return;
  closeSync(file);
  throw new Error(
    `another process uses the data directory ${directory}: stop it, or set FEED_DATA_DIR to another directory`,
  );
}
