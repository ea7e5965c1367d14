import { closeSync, constants, existsSync, mkdirSync, openSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { tryLock } from 'fs-native-extensions';
import { accessError } from './access.js';
import { syncDirectory } from './sync-directory.js';

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
    makeDirectory(directory);
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

/**
 * Makes a directory and those above it that are missing, each with its name flushed. mkdir's own `recursive` never ends where
 * the kernel answers ENOENT below a directory that is there, as in /proc.
 */
function makeDirectory(directory: string): void {
  if (existsSync(directory)) return;
  const parent = dirname(directory);
  if (parent !== directory) makeDirectory(parent);
  try {
    mkdirSync(directory);
  } catch (error) {
    // Another process, which starts on the same directory, was quicker.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  syncDirectory(parent);
}

/** Locks an open file for this process. If another process has locked it, closes it and throws. */
export function takeFile(file: number, directory: string): void {
  if (tryLock(file)) return;
  closeSync(file);
  throw new Error(
    `another process uses the data directory ${directory}: stop it, or set FEED_DATA_DIR to another directory`,
  );
}
