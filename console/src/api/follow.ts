import { Unreachable } from './http.ts';
import { pause, signedIn } from './pause.ts';
import { Problem } from './problem.ts';
import { type Start, watch, type Watcher } from './watch.ts';

/** Reasons with which a watch ends that goes on a little later. */
const PASSING = new Set(['DRAINING', 'MOVED', 'STORE_UNAVAILABLE', 'KEYS_UNAVAILABLE']);

export interface Follower extends Watcher {
  /** The watch has broken, and is tried again by itself. */
  readonly broke?: () => void;
}

/**
 * Watches a topic across breaks: it connects again, and goes on after the last event or sign of life. So no event comes twice
 * and none is missing. It ends by an error: the `Problem` with which the server refuses to go on, or the signal's reason.
 */
export async function follow(
  topic: string,
  start: Start,
  follower: Follower,
  signal: AbortSignal,
): Promise<never> {
  let position = start;
  let attempts = 0;
  const moveTo = (cursor: string): void => {
    if (cursor !== '') position = { after: cursor };
    attempts = 0;
  };
  const watcher: Watcher = {
    began: (cursor, head) => {
      moveTo(cursor);
      follower.began?.(cursor, head);
    },
    events: (lines, cursor) => {
      moveTo(cursor);
      return follower.events(lines, cursor);
    },
    silent: (cursor) => {
      moveTo(cursor);
      follower.silent?.(cursor);
    },
  };
  for (;;) {
    try {
      await watch(topic, position, watcher, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!isPassing(error)) throw error;
      follower.broke?.();
      await signedIn(signal);
      await pause(delay(attempts++), signal);
    }
  }
}

/** True if another attempt may help, perhaps with another token. */
function isPassing(error: unknown): boolean {
  if (error instanceof Unreachable) return true;
  return error instanceof Problem && (error.status === 401 || PASSING.has(error.reason));
}

/** The wait (milliseconds) before an attempt: 250 ms, twice as long each time, up to 4 s; and up to half as much less at random. */
const delay = (attempt: number): number =>
  Math.min(4000, 250 * 2 ** attempt) * (1 - Math.random() / 2);
