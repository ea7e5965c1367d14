import { randomBytes, randomUUID } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { accessError } from './access.js';

const { O_RDWR, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;

/** A new log takes 9 pages of data.mdb, lock.mdb and the note: 640 KiB where a page is 64 KiB, and 52 KiB where it is 4 KiB. */
const NEW_LOG_BYTES = 2 ** 20;

/** LMDB gives lock.mdb this many bytes: a header, and 126 readers. */
const LOCK_FILE_BYTES = 8272;

/**
 * Throws an error that says what to do, if the disk has no room for a new log: where LMDB can't write its pages, it may
 * end the process. It writes as many bytes as a new log takes, and removes them, because statfs() does not show the quota of
 * a user.
 */
export function refuseFullDisk(directory: string): void {
  const path = join(directory, `.room-${randomUUID()}`);
  try {
    const file = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    try {
      // Nobody has to remove it after a crash.
      rmSync(path);
      // Not zeros, which some file systems do not store.
      writeFileSync(file, randomBytes(NEW_LOG_BYTES));
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  } catch (cause) {
    const { message } = accessError(directory, cause);
    throw new Error(`the log needs ${NEW_LOG_BYTES} bytes to begin with: ${message}`, { cause });
  }
}

/**
 * Writes each byte of lock.mdb, so that it has its place on the disk, and makes the file if there is none. LMDB maps
 * the file: where a page of it has no place, and the disk has no room for one, the kernel ends the process by SIGBUS.
 *
 * Call it while no other process has the log open, because it would take back what that one writes meanwhile.
 */
export function reserveLockFile(directory: string): void {
  const path = join(directory, 'lock.mdb');
  try {
    const file = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o664);
    try {
      const bytes = Buffer.alloc(Math.max(fstatSync(file).size, LOCK_FILE_BYTES));
      readSync(file, bytes, 0, bytes.length, 0);
      writeFileSync(file, bytes);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    throw accessError(path, error);
  }
}
