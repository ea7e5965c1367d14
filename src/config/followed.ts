import { setTimeout as sleep } from 'node:timers/promises';

/** The files are looked at this often (milliseconds). */
const INTERVAL = 1_000;
/** New contents are used if the files still have them after this long (milliseconds): perhaps they were half written. */
const SETTLED = 200;

/** What was last made of the contents of one or several files. */
export interface Followed<T> {
  readonly value: T;
  /** Stops looking at the files. */
  close(): void;
}

export interface FollowOptions {
  /** Called when the value has changed. */
  readonly onChange: () => void;
  /** Called once for each reason why new contents can't be used. The last value stays. */
  readonly onRefused: (problem: string) => void;
  /** Called when contents were refused, and those in use are there again. */
  readonly onRestored?: () => void;
  /** How often to look, in milliseconds. */
  readonly interval?: number;
}

/**
 * Makes a value of what some files of the settings contain, and another one whenever that changes. Contents that can't be read
 * or used are refused, unless the next look finds that they were only being replaced.
 *
 * It reads and compares the contents: Kubernetes changes mounted files by swapping a symbolic link two levels above them, which
 * file events of the kernel do not report for a file, and a copy may keep the time of another file.
 *
 * @param read returns the contents, always of the same files in the same order
 * @throws what `read` or `make` throws, for the first contents
 */
export async function follow<T>(
  read: () => Promise<readonly Buffer[]>,
  make: (contents: readonly Buffer[]) => T,
  { onChange, onRefused, onRestored, interval = INTERVAL }: FollowOptions,
): Promise<Followed<T>> {
  let used = await read();
  let value = make(used);
  /** Why the last look found nothing to use; undefined if it did. */
  let problem: string | undefined;
  let isReported = false;
  let isLooking = false;

  const look = async (): Promise<void> => {
    const contents = await read();
    if (areEqual(contents, used)) {
      if (isReported) onRestored?.();
    } else {
      await sleep(SETTLED);
      if (!areEqual(await read(), contents)) return; // The next look finds out.
      value = make(contents);
      used = contents;
      onChange();
    }
    problem = undefined;
    isReported = false;
  };

  const refuse = (why: string): void => {
    if (why !== problem) {
      problem = why;
      isReported = false;
    } else if (!isReported) {
      isReported = true;
      onRefused(why);
    }
  };

  const timer = setInterval(() => {
    if (isLooking) return; // A file system that does not answer.
    isLooking = true;
    look()
      .catch((error: unknown) => refuse((error as Error).message))
      .finally(() => (isLooking = false));
  }, interval).unref();
  return {
    get value() {
      return value;
    },
    close: () => clearInterval(timer),
  };
}

const areEqual = (some: readonly Buffer[], others: readonly Buffer[]): boolean =>
  some.every((content, i) => content.equals(others[i]));
