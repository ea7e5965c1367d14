import { frameLength } from '../wire/frames.js';
import { StoredEvent } from '../wire/stored-event.js';
import { TextWriter } from '../wire/text-writer.js';
import type { Problem } from './problem.js';

/**
 * A part of a batch has at most this many bytes of text, or one event. A client that reads nothing holds the text and the frames of the batch
 * (docs/http.md, "Slow readers"), and a character of an event may become six bytes of text.
 */
const PART_BYTES = 16 * 1024;

/** Text of the frames from an offset on, and the offset of the frame after them. */
export interface TextPart {
  readonly text: Buffer;
  readonly end: number;
}

/** The waiting times that browsers are told (milliseconds), from the least to the most, at random. */
export const RETRY_USUAL = [1_000, 2_000] as const;
export const RETRY_SPREAD = [1_000, 5_000] as const;

/** One reader and one writer serve all watches, because textOf() never waits. */
const event = new StoredEvent();
const out = new TextWriter();

/** How the events of a watch are written as text. */
export abstract class EventFormat {
  abstract readonly contentType: string;
  /** Returns what comes before the first event. */
  abstract beginning(cursor: string): string;
  /** Returns what comes last. */
  abstract ending(problem: Problem, isTemporary: boolean): string;
  protected abstract write(event: StoredEvent, out: TextWriter): void;

  private last:
    { readonly frames: Buffer; readonly at: number; readonly part: TextPart } | undefined;

  /**
   * Returns the text of frames from an offset on, or of some of them. Watches that are at the same place are sent the same buffers one after
   * another, so the last text is remembered.
   *
   * @throws Error if the first of these events is damaged; the text ends before a damaged one that comes later
   */
  textOf(frames: Buffer, at: number): TextPart {
    const { last } = this;
    if (last?.frames === frames && last.at === at) return last.part;
    let end = at;
    let length = 0;
    try {
      do {
        event.read(frames, end);
        this.write(event, out);
        if (out.length > PART_BYTES && end > at) break;
        ({ length } = out);
        ({ end } = event);
      } while (end < frames.length && length + frameLength(frames, end) <= PART_BYTES);
    } catch (error) {
      if (end === at) {
        out.take(0);
        throw error;
      }
    }
    const part = { text: out.take(length), end };
    this.last = { frames, at, part };
    return part;
  }
}

/** Server-Sent Events, as the HTML standard has them. */
class ServerSentEvents extends EventFormat {
  readonly contentType = 'text/event-stream';

  /** Browsers can't read headers, and would start anew if the connection broke before the first event. */
  beginning(cursor: string): string {
    return `retry: ${retryWithin(RETRY_USUAL)}\nid: ${cursor}\n\n`;
  }

  /** The event is not called `error`, which is what browsers call a lost connection. */
  ending(problem: Problem, isTemporary: boolean): string {
    const { cursor } = problem;
    const retry = isTemporary ? `retry: ${retryWithin(RETRY_SPREAD)}\n` : '';
    const id = typeof cursor === 'string' ? `id: ${cursor}\n` : '';
    return `${retry}${id}event: feed-error\ndata: ${JSON.stringify(problem)}\n\n`;
  }

  protected write(stored: StoredEvent, text: TextWriter): void {
    text.ascii('id: ');
    stored.writeCursor(text);
    if (!stored.isHeartbeat) {
      text.ascii('\ndata: ');
      stored.writeJson(text);
    }
    text.ascii('\n\n');
  }
}

/** A JSON object a line. */
class JsonLines extends EventFormat {
  readonly contentType = 'application/x-ndjson';

  beginning(): string {
    return '';
  }

  ending(error: Problem): string {
    return `${JSON.stringify({ error })}\n`;
  }

  protected write(stored: StoredEvent, text: TextWriter): void {
    stored.writeJson(text);
    text.ascii('\n');
  }
}

const retryWithin = ([least, most]: readonly [number, number]): number =>
  Math.round(least + Math.random() * (most - least));

export const SERVER_SENT_EVENTS: EventFormat = new ServerSentEvents();
export const JSON_LINES: EventFormat = new JsonLines();
