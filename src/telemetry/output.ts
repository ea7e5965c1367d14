import { write, writeFileSync } from 'node:fs';

/**
 * At most this many characters wait to be written. A line may be longer if nothing waits and no write is in flight.
 */
const MAX_WAITING = 16 * 1024 * 1024;
/** After lines were dropped, new lines are taken again once no more than this many characters wait. */
const RESUME_BELOW = MAX_WAITING / 2;
/** A write has at most this many characters, unless a single line has more. */
const MAX_WRITE = 64 * 1024;
/** A write that failed is tried again after this many milliseconds. */
const RETRY = 100;
/**
 * A write that failed because a pipe was full is tried again after this many milliseconds: 64 KiB each time are 6
 * MB/s.
 */
const RETRY_FULL_PIPE = 10;
/** If the last write has not returned this long (ms) after end()'s timeout, its thread is taken to hang. */
const HANG_TIMEOUT = 3 * RETRY;

export interface DroppedLines {
  readonly dropped: number;
  /** The error code of the write that failed last. EAGAIN or undefined means that nobody read the output. */
  readonly code: string | undefined;
}

export interface Output {
  /** Takes a line, with its line break. Never throws and never waits. */
  readonly write: (line: string) => void;
  /**
   * Resolves once every line is written, or else after `timeout` milliseconds, or up to 300 ms later if a write is in
   * flight then. Lines that still wait are lost, because nobody knows how long their reader would take.
   *
   * @returns false where a thread hangs in a write: exit() would wait for that thread
   */
  readonly end: (timeout: number) => Promise<boolean>;
}

/**
 * Writes lines to a file descriptor that may be slow, full, unread or broken. The process never waits for it; at
 * worst, lines are lost.
 *
 * A thread of node's pool makes the writes, one at a time: a terminal that is held by Ctrl-S, or a pipe that nobody
 * reads, stops that thread and not the process. A write that fails is tried again until it works, whatever the error
 * is: a full disk (ENOSPC, EDQUOT), a disk that does not answer for a moment (EIO), a named pipe whose reader starts
 * again (EPIPE), a full pipe that is non-blocking, as node makes it for process.stdout (EAGAIN). Meanwhile lines
 * wait, and those beyond MAX_WAITING are dropped.
 *
 * @param onRoom is called with the number of dropped lines once new lines are taken again. A line that it writes then
 * stands in the place of the dropped ones.
 */
export function openOutput(fd: number, onRoom: (lines: DroppedLines) => void): Output {
  /** The texts of the next writes: lines, joined up to MAX_WRITE characters. */
  const waiting: string[] = [];
  let waitingLength = 0;
  /** The bytes of the write that is in flight or will be tried again. */
  let chunk: Buffer | undefined;
  let isInFlight = false;
  /** True while a line waits or is being written. */
  let isBusy = false;
  let dropped = 0;
  let code: string | undefined;
  /** end() has given up: no further write begins. */
  let isOver = false;
  let onOver = (): void => {};

  const writeNext = (): void => {
    chunk ??= nextChunk();
    if (!chunk) {
      isBusy = false;
      onOver();
      return;
    }
    isInFlight = true;
    write(fd, chunk, (error, bytes) => {
      isInFlight = false;
      if (error) code = error.code;
      else chunk = bytes < chunk!.length ? chunk!.subarray(bytes) : undefined;
      if (isOver) {
        onOver();
      } else if (error) {
        setTimeout(writeNext, code === 'EAGAIN' ? RETRY_FULL_PIPE : RETRY);
      } else {
        reportDropped();
        writeNext();
      }
    });
  };

  const nextChunk = (): Buffer | undefined => {
    const text = waiting.shift();
    if (text === undefined) return undefined;
    waitingLength -= text.length;
    return Buffer.from(text);
  };

  const reportDropped = (): void => {
    if (waitingLength > RESUME_BELOW) return;
    const lines = { dropped, code };
    dropped = 0;
    code = undefined;
    if (lines.dropped > 0) onRoom(lines);
  };

  // After an uncaught exception nobody calls end(), and the last lines may say why the process ends. exit() itself
  // waits for a write that is in flight. Once end() has given up, another write here could wait for a reader for
  // ever.
  process.once('exit', () => {
    if (isOver) return;
    try {
      // writeFileSync() goes on after a short write, which writeSync() does not.
      if (chunk && !isInFlight) writeFileSync(fd, chunk);
      writeFileSync(fd, Buffer.from(waiting.join('')));
    } catch {
      // The lines can't be written: they are lost.
    }
  });

  return {
    write: (line) => {
      if (dropped > 0 || (isBusy && waitingLength + line.length > MAX_WAITING)) {
        dropped++;
        return;
      }
      const last = waiting.length - 1;
      if (last >= 0 && waiting[last].length + line.length <= MAX_WRITE) waiting[last] += line;
      else waiting.push(line);
      waitingLength += line.length;
      if (isBusy) return;
      isBusy = true;
      setImmediate(writeNext); // then one write takes all lines of this turn of the event loop
    },
    end: (timeout) =>
      new Promise((resolve) => {
        if (!isBusy) {
          resolve(true);
          return;
        }
        onOver = () => resolve(true);
        setTimeout(() => {
          isOver = true; // The write in flight is the last.
          if (isInFlight) setTimeout(resolve, HANG_TIMEOUT, false);
          else resolve(true); // It failed and waits for its next try: no thread hangs.
        }, timeout);
      }),
  };
}
