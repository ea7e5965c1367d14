import { fstatSync } from 'node:fs';
import { type FileHandle, stat } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { isUtf8 } from 'node:buffer';
import { pause } from '../backoff.js';
import { CommandError, EXIT } from './exit-codes.js';

/** A place in a file. The end of the line "hi\n" at the start of a file is `{ offset: 3, line: 1 }`. */
export interface Place {
  /** The number of bytes before it. */
  readonly offset: number;
  /** The number of lines before it. */
  readonly line: number;
}

/** The start of a file. */
export const START: Place = { offset: 0, line: 0 };

/** Whole lines that were read together. */
export interface LineBlock {
  readonly bytes: Buffer;
  readonly start: Place;
  readonly end: Place;
}

/** A line of a block, without its line break. */
export interface Line {
  readonly text: string;
  /** The number of bytes before it in the file. */
  readonly offset: number;
  /** The place after its line break. */
  readonly end: Place;
}

const READ_BYTES = 2 ** 19;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;

/** More than the largest event of any server, which has 3 MiB (FEED_MAX_EVENT_BYTES). */
const MAX_LINE_BYTES = 4 * 2 ** 20;

/** The interval at which a file that is followed is looked at for more, in milliseconds. */
const LOOK_EVERY = 200;

/** Reads a file from an offset to its end, or to the offset `end`, or until the signal fires. */
export async function* readFile(
  file: FileHandle,
  offset: number,
  signal: AbortSignal,
  end = Infinity,
): AsyncGenerator<Buffer, undefined, void> {
  for (let at = offset; !signal.aborted;) {
    const length = Math.min(READ_BYTES, end - at);
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(length), 0, length, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/**
 * Why the reading of a followed file ended: another file has its name now; it is shorter than what was read of it; or it is longer, but
 * other bytes stand before the place up to which it was read.
 */
export type FollowedEnd = 'replaced' | 'truncated' | 'rewritten';

/** This many bytes before the place up to which a followed file was read are compared when there is more. */
const COMPARED_BYTES = 4_096;

/**
 * Reads a file from an offset, and what is appended to it, as `tail -F` does.
 *
 * @returns why it ended; undefined if the signal fired
 */
export async function* followFile(
  path: string,
  file: FileHandle,
  offset: number,
  signal: AbortSignal,
): AsyncGenerator<Buffer, FollowedEnd | undefined, void> {
  let at = offset;
  let before = await bytesBefore(file, offset);
  for (;;) {
    // This comes before the reading, so that what the old file got before it was replaced is read.
    const end = await endOf(path, file, at);
    if (end === 'truncated' && !signal.aborted) return end;
    while (!signal.aborted) {
      // One call reads what is compared and what follows it: between two calls, the file could be rewritten.
      const read = await readAt(file, at - before.length, before.length + READ_BYTES);
      if (read.length <= before.length) break;
      if (!read.subarray(0, before.length).equals(before)) return 'rewritten';
      yield read.subarray(before.length);
      at += read.length - before.length;
      before = Buffer.from(read.subarray(-COMPARED_BYTES));
    }
    if (signal.aborted) return undefined;
    if (end) return end;
    await pause(LOOK_EVERY, signal);
  }
}

function bytesBefore(file: FileHandle, offset: number): Promise<Buffer> {
  const length = Math.min(COMPARED_BYTES, offset);
  return readAt(file, offset - length, length);
}

/** Reads up to `length` bytes from an offset: fewer at the end of the file. */
async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(length), 0, length, offset);
  return buffer.subarray(0, bytesRead);
}

/** Returns why there is nothing more to come from a followed file, of which `offset` bytes were read. */
async function endOf(
  path: string,
  file: FileHandle,
  offset: number,
): Promise<FollowedEnd | undefined> {
  const own = await file.stat();
  if (own.size < offset) return 'truncated';
  try {
    const named = await stat(path);
    return named.ino === own.ino && named.dev === own.dev ? undefined : 'replaced';
  } catch {
    return undefined; // No file has the name now: another one may get it.
  }
}

/** @throws CommandError if the standard input is a directory, in place of which Node gives an empty stream */
export function checkInput(): void {
  if (fstatSync(0).isDirectory())
    throw new CommandError('the standard input is a directory', EXIT.file);
}

/** Reads a stream to its end, or until the signal fires. */
export async function* readStream(
  stream: Readable,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, void> {
  const stop = (): void => void stream.destroy();
  if (signal.aborted) return stop();
  signal.addEventListener('abort', stop);
  try {
    for await (const bytes of stream) yield bytes as Buffer;
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/**
 * Cuts what is read into blocks of whole lines. What follows the last line break counts as a line if the input came to its end,
 * but not if the signal stopped it.
 *
 * @param name of the file, for errors
 * @returns what `source` returned
 * @throws CommandError, after the lines before, for one that is not UTF-8 or a line that is longer than any event
 */
export async function* lineBlocks<R>(
  source: AsyncGenerator<Buffer, R, void>,
  start: Place,
  name: string,
  signal: AbortSignal,
): AsyncGenerator<LineBlock, R, void> {
  let place = start;
  let rest: Buffer[] = [];
  let restBytes = 0;
  /** Yields these lines, or those before the first that is no text. */
  function* block(bytes: Buffer): Generator<LineBlock, void, void> {
    const good = isUtf8(bytes) ? bytes : bytes.subarray(0, startOfBadLine(bytes));
    if (good.length > 0) {
      const end = { offset: place.offset + good.length, line: place.line + countLines(good) };
      const whole = { bytes: good, start: place, end };
      place = end;
      yield whole;
    }
    // Decoding would replace the bytes, and other text than was given be stored.
    if (good.length < bytes.length)
      throw new CommandError(`line ${place.line + 1} of ${name} is not UTF-8 text`, EXIT.file);
  }
  for (;;) {
    const { done, value } = await source.next();
    if (done) {
      if (restBytes > 0 && !signal.aborted) yield* block(Buffer.concat(rest));
      return value;
    }
    const cut = value.lastIndexOf(LINE_FEED) + 1;
    if (cut > 0) {
      const whole = value.subarray(0, cut);
      yield* block(restBytes === 0 ? whole : Buffer.concat([...rest, whole]));
      rest = [];
      restBytes = 0;
    }
    if (cut < value.length) {
      rest.push(value.subarray(cut));
      restBytes += value.length - cut;
    }
    if (restBytes > MAX_LINE_BYTES)
      throw new CommandError(
        `line ${place.line + 1} of ${name} is longer than 4 MiB, which is more than a server takes`,
        EXIT.file,
      );
  }
}

/** Yields the lines of a block. A line ends with a line feed, or with a carriage return and a line feed. */
export function* linesOf({ bytes, start }: LineBlock): Generator<Line, void, void> {
  let { line } = start;
  for (let at = 0; at < bytes.length;) {
    const found = bytes.indexOf(LINE_FEED, at);
    const next = found === -1 ? bytes.length : found + 1;
    let textEnd = found === -1 ? next : found;
    if (found > at && bytes[textEnd - 1] === CARRIAGE_RETURN) textEnd--;
    line++;
    yield {
      text: bytes.toString('utf8', at, textEnd),
      offset: start.offset + at,
      end: { offset: start.offset + next, line },
    };
    at = next;
  }
}

function countLines(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(LINE_FEED); at !== -1; at = bytes.indexOf(LINE_FEED, at + 1)) count++;
  return bytes.at(-1) === LINE_FEED ? count : count + 1;
}

/** Returns the offset of the first line that is not UTF-8. There has to be one. */
function startOfBadLine(bytes: Buffer): number {
  for (let at = 0; ;) {
    const found = bytes.indexOf(LINE_FEED, at);
    const next = found === -1 ? bytes.length : found + 1;
    if (!isUtf8(bytes.subarray(at, next))) return at;
    at = next;
  }
}
