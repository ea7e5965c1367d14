import { constants, createReadStream, fstatSync, open as openDescriptor } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { isatty, ReadStream } from 'node:tty';
import { promisify } from 'node:util';
import { systemError } from '../system-error.js';
import { CommandError, EXIT } from './exit-codes.js';

/** Returns false for a pipe or a device. @throws CommandError if the file can't be looked at, or is a directory */
export async function isFile(path: string): Promise<boolean> {
  const found = await stat(path).catch((cause: unknown) => {
    throw cantRead(path, cause);
  });
  if (found.isDirectory()) throw new CommandError(`${path} is a directory`, EXIT.file);
  return found.isFile();
}

/** @throws CommandError if the file can't be read */
export function openFile(path: string): Promise<FileHandle> {
  return open(path).catch((cause: unknown) => {
    throw cantRead(path, cause);
  });
}

/**
 * Opens a pipe or a device, and returns its descriptor. On Linux, a pipe that has no writer yet is opened all the same, and a read
 * waits for the writer. Elsewhere, such a read could end at once, so the opening waits, and only a second signal ends it.
 *
 * @throws CommandError if it can't be read
 */
export async function openUnseekable(path: string): Promise<number> {
  const { O_RDONLY, O_NONBLOCK } = constants;
  const mayWait = process.platform === 'linux' && (await stat(path)).isFIFO();
  return promisify(openDescriptor)(path, mayWait ? O_RDONLY | O_NONBLOCK : O_RDONLY).catch(
    (cause: unknown) => {
      throw cantRead(path, cause);
    },
  );
}

/**
 * Returns the stream of a pipe or a device, which closes the descriptor. fs.ReadStream would wait for a pipe or a terminal in one of
 * libuv's threads, which nothing can interrupt.
 */
export function streamOf(fd: number): Readable {
  if (isatty(fd)) return new ReadStream(fd);
  if (fstatSync(fd).isFIFO()) return new Socket({ fd, readable: true, writable: false });
  return createReadStream('', { fd });
}

function cantRead(path: string, cause: unknown): CommandError {
  return new CommandError(`${path} can't be read: ${systemError(cause)}`, EXIT.file, { cause });
}
