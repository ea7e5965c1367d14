import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';

/** A file is looked at this often (milliseconds). */
const INTERVAL = 1_000;
/** A new content is used if the file still has it after this long (milliseconds): perhaps it was half written. */
const SETTLED = 200;

/** The latest value that could be made of a file. */
export interface FollowedFile<T> {
  readonly value: T;
  /** Stops looking at the file. */
  close(): void;
}

export interface FollowOptions {
  /** Names the file in the log, such as "the policy". */
  readonly what: string;
  readonly log: Logger;
  /** Called when the value has changed. */
  readonly onChange?: () => void;
  /** How often to look, in milliseconds. */
  readonly interval?: number;
}

/**
 * Makes a value of a file's content, and another one whenever the content changes. A content that can't be read or used is
 * refused with a line in the log, and the last value stays.
 *
 * It reads and compares the content: Kubernetes changes a mounted file by swapping a symbolic link two levels above it, which
 * file events of the kernel do not report for the file, and a copy may keep the time of another file.
 *
 * @throws what reading or `parse` throws, for the first content
 */
export async function followFile<T>(
  path: string,
  parse: (text: string) => T,
  { what, log, onChange = () => {}, interval = INTERVAL }: FollowOptions,
): Promise<FollowedFile<T>> {
  let used = await readFile(path, 'utf8');
  let value = parse(used);
  let seen = used;
  let lastProblem: string | undefined;
  let isReading = false;

  const look = async (): Promise<void> => {
    let isNew = false;
    let problem: string | undefined;
    try {
      const text = await readFile(path, 'utf8');
      if (text !== seen) {
        await sleep(SETTLED);
        if ((await readFile(path, 'utf8')) !== text) return; // The next look finds out.
        seen = text;
        value = parse(text);
        used = text;
        isNew = true;
      } else if (text !== used) {
        return; // It is still the one that was refused.
      }
    } catch (error) {
      problem = (error as Error).message;
    }
    if (isNew) {
      log.info({ file: path }, `${what} has changed, and is used from now on`);
      onChange();
    } else if (problem !== undefined && problem !== lastProblem) {
      log.error({ file: path, problem }, `${what} can't be used; the last good one stays`);
    }
    lastProblem = problem;
  };

  const timer = setInterval(() => {
    if (isReading) return;
    isReading = true;
    void look().finally(() => (isReading = false));
  }, interval).unref();
  return {
    get value() {
      return value;
    },
    close: () => clearInterval(timer),
  };
}
