import { randomBytes } from 'node:crypto';
import { ChatMessage, Event } from '../../gen/feed/v1/feed.js';
import { frame } from '../../grpc/frames.js';

const FRAME_HEADER_BYTES = 5;
// An id is eight characters for the run and the event's number, such as `3fa94c10000000000042`.
const RUN_CHARACTERS = 8;
const NUMBER_DIGITS = 12;
/** A body begins with the time at which it was made, in microseconds with this many digits. The rest of it is x. */
export const TIME_DIGITS = 16;

/** The server adds a cursor of 16 characters and a time, 18 and 14 bytes with the keys and lengths of the fields. */
const ADDED_BYTES = 18 + 14;

/**
 * Makes framed events of one topic, many at a time. It encodes one event, and overwrites only the digits of the id and of the
 * time in copies of it, so that this client is not slower than the server that it measures.
 */
export class EventMaker {
  private readonly template: Buffer;
  private readonly numberAt: number;
  private readonly timeAt: number;
  private made = 0;

  /** @param bodyBytes at least TIME_DIGITS */
  constructor(topic: string, bodyBytes: number) {
    const run = randomBytes(RUN_CHARACTERS / 2).toString('hex');
    const id = `${run}${'0'.repeat(NUMBER_DIGITS)}`;
    const body = '0'.repeat(TIME_DIGITS).padEnd(bodyBytes, 'x');
    this.template = frame(
      Event.encode({ id, topic, body, at: undefined, cursor: '', attributes: {} }).finish(),
    );
    // The id is the first field, after its key and its length of one byte each; the body is the last field.
    this.numberAt = FRAME_HEADER_BYTES + 2 + RUN_CHARACTERS;
    this.timeAt = this.template.length - bodyBytes;
  }

  /** The size of an event in the log, in bytes, at most. */
  get storedBytes(): number {
    return this.template.length + ADDED_BYTES;
  }

  /** Returns the next `count` events, in one buffer. */
  make(count: number): Buffer {
    const { length } = this.template;
    const all = Buffer.allocUnsafe(count * length);
    const now = Math.floor(performance.now() * 1_000);
    for (let i = 0, at = 0; i < count; i++, at += length) {
      this.template.copy(all, at);
      writeDigits(all, at + this.numberAt, NUMBER_DIGITS, this.made++);
      writeDigits(all, at + this.timeAt, TIME_DIGITS, now);
    }
    return all;
  }
}

/** Returns how many milliseconds ago this process made the event. */
export function ageOf(message: Buffer): number {
  const { body } = Event.decode(message);
  return performance.now() - Number(body.slice(0, TIME_DIGITS)) / 1_000;
}

/** Returns `count` framed chat messages that name no room, which the server echoes. */
export function chatMessages(count: number, textBytes: number): Buffer {
  const message = { from: 'feed bench', text: 'x'.repeat(textBytes), room: '' };
  const one = frame(ChatMessage.encode(message).finish());
  return Buffer.concat(Array.from({ length: count }, () => one));
}

/** Writes a number as decimal digits, with leading zeros. */
function writeDigits(bytes: Buffer, at: number, count: number, value: number): void {
  let rest = value;
  for (let i = at + count - 1; i >= at; i--) {
    bytes[i] = 48 + (rest % 10);
    rest = Math.floor(rest / 10);
  }
}
