import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { tryLock } from 'fs-native-extensions';
import { accessError } from './access.js';
import { syncDirectory } from './sync-directory.js';

const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;

/** The lock of a data directory. */
export interface DirectoryLock {
  /** Unlocks the directory. */
  readonly release: () => void;
  /** Removes what takeDirectory() made: the lock file, and directories unless something else is in them. */
  readonly removeMade: () => void;
}

/**
 * Makes a directory if there is none, and locks it for this process, because LMDB lets two processes write one log
 * without complaint. The kernel releases the lock when the process ends, however it ends. A PID file would stay, and
 * in containers every process is PID 1.
 *
 * @throws an error that names the setting
 */
export function takeDirectory(directory: string): DirectoryLock {
  const path = join(directory, 'lock');
  let made: string[];
  let hadFile: boolean;
  let file: number;
  let wanted = directory;
  try {
    made = makeDirectory(directory);
    wanted = path;
    hadFile = existsSync(path);
    file = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW);
  } catch (cause) {
    const error = accessError(wanted, cause);
    throw new Error(`can't use the data directory ${directory} (FEED_DATA_DIR): ${error.message}`, {
      cause,
    });
  }
  takeFile(file, directory);
  // Another process, whose restore failed, may have removed the file before this one locked it.
  if (fstatSync(file).ino !== lstatSync(path, { throwIfNoEntry: false })?.ino) {
    closeSync(file);
    return takeDirectory(directory);
  }
  return {
    release: () => closeSync(file),
    removeMade: () => {
      if (!hadFile) rmSync(path);
      try {
        for (const inner of made.toReversed()) rmdirSync(inner);
      } catch {
        // Somebody has put something there.
      }
    },
  };
}

/**
 * Makes a directory and those above it that are missing, each with its name flushed. mkdir's own `recursive` never ends where
 * the kernel answers ENOENT below a directory that is there, as in /proc.
 *
 * @returns those that it made, the outermost first
 */
function makeDirectory(directory: string): string[] {
  if (existsSync(directory)) return [];
  const parent = dirname(directory);
  const made = parent === directory ? [] : makeDirectory(parent);
  try {
    mkdirSync(directory);
    made.push(directory);
  } catch (error) {
    // Another process, which starts on the same directory, was quicker.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  syncDirectory(parent);
  return made;
}

/** Locks an open file for this process. If another process has locked it, closes it and throws. */
export function takeFile(file: number, directory: string): void {
  if (tryLock(file)) return;
  closeSync(file);
  throw new Error(
    `another process uses the data directory ${directory}: stop it, or set FEED_DATA_DIR to another directory`,
  );
}
