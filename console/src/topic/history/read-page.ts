import { parseEvent, type Start, watch } from '../../api/watch.ts';

export interface Page {
  readonly lines: readonly string[];
  /** Where the next page begins. */
  readonly next: Start;
  /** True if nothing more was stored when the page was read. */
  readonly isEnd: boolean;
}

/** A page ends with this many events, or before the one with which their lines would take more characters; it has at least one. */
export interface PageSize {
  readonly events: number;
  readonly characters: number;
}

/**
 * Reads a page of the stored events of a topic, the oldest first. Throws what `watch` does.
 *
 * The server has no end of a history: it would wait for what is stored next. So the page ends at the first sign of life that has
 * come to the end of the log.
 */
export async function readPage(
  topic: string,
  start: Start,
  most: PageSize,
  signal: AbortSignal,
): Promise<Page> {
  const lines: string[] = [];
  let characters = 0;
  // One topic of a pattern may still hold events that are older than those that another one has lost. A page of these goes past the lost ones.
  const skipRemoved = start.from === 'earliest' || start.skipRemoved;
  let next = start;
  let end = '';
  let isEnd = false;
  const enough = new AbortController();
  const moveTo = (cursor: string): void => {
    if (cursor !== '') next = { after: cursor, ...(skipRemoved && { skipRemoved }) };
  };
  const watcher = {
    began: (cursor: string, head: string) => {
      moveTo(cursor);
      end = head;
    },
    events: (more: readonly string[]) => {
      if (enough.signal.aborted) return;
      for (const line of more) {
        characters += line.length;
        if (lines.length > 0 && characters > most.characters) enough.abort();
        else lines.push(line);
        if (lines.length === most.events) enough.abort();
        if (enough.signal.aborted) break;
      }
      moveTo(parseEvent(lines.at(-1)!).cursor);
    },
    // Cursors of one log compare as text.
    silent: (cursor: string) => {
      if (enough.signal.aborted) return;
      moveTo(cursor);
      isEnd = cursor >= end;
      if (isEnd) enough.abort();
    },
  };
  try {
    await watch(topic, start, watcher, AbortSignal.any([signal, enough.signal]));
  } catch (error) {
    signal.throwIfAborted();
    if (!enough.signal.aborted) throw error;
  }
  return { lines, next, isEnd };
}
