import { address, lost, request, toProblem } from './http.ts';
import { Lines } from './lines.ts';

/** Where a watch begins; without any of these, with what is stored from now on. */
export interface Start {
  readonly after?: string;
  readonly from?: 'earliest';
  /** RFC 3339. */
  readonly since?: string;
  readonly last?: number;
  /** Go on after the cursor also where events after it were removed. */
  readonly skipRemoved?: boolean;
}

export interface FeedEvent {
  readonly id: string;
  readonly topic: string;
  readonly body: string;
  readonly at: string;
  readonly cursor: string;
  readonly attributes?: Readonly<Record<string, string>>;
}

export interface Watcher {
  /**
   * Takes events, each a line of JSON, in order. The next ones are read once it has returned, or its promise is fulfilled.
   * `cursor` is the cursor of the last one, to resume after.
   */
  readonly events: (lines: readonly string[], cursor: string) => void | Promise<void>;
  /** The watch begins after `cursor`; the end of the log is `head`. */
  readonly began?: (cursor: string, head: string) => void;
  /** A sign of life: nothing more was stored for a while, up to this cursor, to resume after. */
  readonly silent?: (cursor: string) => void;
}

/** In silence, the server gives a sign of life this often (seconds): the shortest that it grants. */
const HEARTBEAT = 1;
/** A server of which nothing comes for so long (milliseconds) is lost, although the connection may seem to be open. */
const SILENCE = 15_000;

/**
 * Watches a topic until the watch ends, which it does by an error: `Problem` if the server refuses or ends it with a reason,
 * `Unreachable` if the connection breaks or is silent, or the signal's reason.
 *
 * It reads by fetch(), not by EventSource. That would hide from the page why a watch is refused, where it begins, and
 * whether a silent connection is alive; and it would take in what comes faster than the page can show.
 */
export async function watch(
  topic: string,
  start: Start,
  watcher: Watcher,
  signal: AbortSignal,
): Promise<never> {
  const connection = new AbortController();
  const either = AbortSignal.any([signal, connection.signal]);
  const silence = timeout(() => connection.abort(), SILENCE);
  silence.again();
  try {
    const url = address('events', { topic, heartbeat: `${HEARTBEAT}s`, ...start });
    const headers = { accept: 'application/x-ndjson' };
    const response = await request(url, { signal: either, headers, cache: 'no-store' });
    const header = (name: string): string => response.headers.get(name) ?? '';
    watcher.began?.(header('feed-start'), header('feed-head'));
    const reader = response.body!.getReader();
    const lines = new Lines();
    for (;;) {
      silence.again();
      const chunk = await reader.read().catch(() => undefined);
      silence.stop();
      signal.throwIfAborted();
      // The connection broke, or it ended without a problem.
      if (!chunk?.value) throw lost();
      await hand(lines.take(chunk.value), watcher, signal);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw connection.signal.aborted ? lost() : error;
  } finally {
    silence.stop();
    connection.abort();
  }
}

/**
 * Hands events to the watcher, as many as follow one another, and signs of life. Throws the problem that ends the watch, and the
 * signal's reason if that fires while the watcher takes events.
 */
async function hand(
  lines: readonly string[],
  watcher: Watcher,
  signal: AbortSignal,
): Promise<void> {
  let events: string[] = [];
  const handEvents = async (): Promise<void> => {
    const last = events.at(-1);
    if (last === undefined) return;
    await watcher.events(events, parseEvent(last).cursor);
    signal.throwIfAborted();
    events = [];
  };
  for (const line of lines) {
    if (line.startsWith(EVENT)) events.push(line);
    else {
      const other = JSON.parse(line) as Other;
      if (other.id !== undefined) events.push(line);
      else {
        await handEvents();
        if (other.error) throw toProblem(other.error);
        watcher.silent?.(other.cursor ?? '');
      }
    }
  }
  await handEvents();
}

/** How the server begins the line of an event, so that most lines need not be parsed here. */
const EVENT = '{"id":';

/** A line that may be no event: a sign of life has no id, and the last line may be an error. */
interface Other {
  readonly id?: string;
  readonly cursor?: string;
  readonly error?: unknown;
}

export const parseEvent = (line: string): FeedEvent => JSON.parse(line) as FeedEvent;

/** A timeout that is set anew by `again`. */
function timeout(fire: () => void, after: number): { again: () => void; stop: () => void } {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const stop = (): void => clearTimeout(timer);
  const again = (): void => {
    stop();
    timer = setTimeout(fire, after);
  };
  return { again, stop };
}
