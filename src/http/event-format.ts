import { frameLength } from '../wire/frames.js';
import { StoredEvent } from '../wire/stored-event.js';
import { TextPiece } from '../wire/text-piece.js';
import { type TextTarget, TextWriter } from '../wire/text-writer.js';
import type { Problem } from './problem.js';

/**
 * A part of a batch has at most this many bytes of text, or one event, or a piece of a long one. A client that reads nothing holds the text and the
 * frames of the batch (docs/http.md, "Slow readers"), and a character of an event may become six bytes of text.
 */
const PART_BYTES = 16 * 1024;
/** The frame of a long event has more bytes than this. */
const LONG_EVENT = 8 * 1024;
/** The text of a long event that takes no more than so many times the event is one part. Then the event itself need not be kept. */
const MOST_GROWTH = 1.25;

/** Text of the frames from an offset on, and where the text after it begins. */
export interface TextPart {
  readonly text: Buffer;
  /** The offset of the frame of the next event, or of the same one, if it goes on. */
  readonly end: number;
  /** How much of that event is in this text and those before it: TextPiece.end. 0 if nothing is. */
  readonly begun: number;
}

/** The waiting times that browsers are told (milliseconds), from the least to the most, at random. */
export const RETRY_USUAL = [1_000, 2_000] as const;
export const RETRY_SPREAD = [1_000, 5_000] as const;

/** One reader and one writer serve all watches, because textOf() never waits. */
const event = new StoredEvent();
const out = new TextWriter();
const piece = new TextPiece(out);

/** How the events of a watch are written as text. */
export abstract class EventFormat {
  abstract readonly contentType: string;
  /** Returns what comes before the first event. */
  abstract beginning(cursor: string): string;
  /** Returns what comes last. */
  abstract ending(problem: Problem, isTemporary: boolean): string;
  protected abstract write(event: StoredEvent, out: TextTarget): void;

  private last:
    | {
        readonly frames: Buffer;
        readonly at: number;
        readonly begun: number;
        readonly part: TextPart;
      }
    | undefined;

  /**
   * Returns the text of frames from an offset on, or of some of them. Watches that are at the same place are sent the same buffers one after
   * another, so the last text is remembered.
   *
   * @param begun that of the part before, if it ended amid this event
   * @throws Error if the first of these events is damaged; the text ends before a damaged one that comes later
   */
  textOf(frames: Buffer, at: number, begun = 0): TextPart {
    const { last } = this;
    if (last?.frames === frames && last.at === at && last.begun === begun) return last.part;
    const length = frameLength(frames, at);
    let part: TextPart;
    try {
      part =
        length > LONG_EVENT
          ? this.longEvent(frames, at, begun, length)
          : this.shortEvents(frames, at);
    } catch (error) {
      out.take(0);
      throw error;
    }
    this.last = { frames, at, begun, part };
    return part;
  }

  private shortEvents(frames: Buffer, at: number): TextPart {
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
      if (end === at) throw error;
    }
    return { text: out.take(length), end, begun: 0 };
  }

  /** As text, an event may take six times as much. Then a client that reads nothing holds the event, and a piece of its text. */
  private longEvent(frames: Buffer, at: number, begun: number, length: number): TextPart {
    if (begun === 0) {
      const whole = this.pieceOf(frames, at, 0, length * MOST_GROWTH);
      if (whole.begun === 0) return whole;
    }
    return this.pieceOf(frames, at, begun, PART_BYTES);
  }

  private pieceOf(frames: Buffer, at: number, begun: number, most: number): TextPart {
    event.read(frames, at);
    piece.begin(begun, most);
    this.write(event, piece);
    const text = out.take();
    return piece.isFull ? { text, end: at, begun: piece.end } : { text, end: event.end, begun: 0 };
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

  protected write(stored: StoredEvent, text: TextTarget): void {
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

  protected write(stored: StoredEvent, text: TextTarget): void {
    stored.writeJson(text);
    text.ascii('\n');
  }
}

const retryWithin = ([least, most]: readonly [number, number]): number =>
  Math.round(least + Math.random() * (most - least));

export const SERVER_SENT_EVENTS: EventFormat = new ServerSentEvents();
export const JSON_LINES: EventFormat = new JsonLines();
