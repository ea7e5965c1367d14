// Makes and counts framed messages many at a time: a benchmark's client must not be slower than the service it
// measures.
const HEADER_BYTES = 5;
const ID_DIGITS = 12;
const TIME_DIGITS = 16;
const BODY_BYTES = 100;
/** A delivered event ends with the characters of its cursor. */
const CURSOR_CHARACTERS = 16;

/** Encodes a framed message. Each field is its number (below 16) and its value: message([1, 'bench'], [5, 100]). */
export function message(
  ...fields: readonly (readonly [field: number, value: string | Buffer | number])[]
): Buffer {
  const parts = fields.flatMap(([number, text]) => {
    if (typeof text === 'number') return [Buffer.from([number << 3, ...varint(text)])];
    const bytes = Buffer.from(text as string);
    return [Buffer.from([(number << 3) | 2, ...varint(bytes.length)]), bytes];
  });
  const body = Buffer.concat(parts);
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32BE(body.length, 1);
  return Buffer.concat([header, body]);
}

/**
 * Makes framed events of one topic, each with an id of its own, many at a time. It encodes one event, and then only
 * overwrites the digits of the id and of the time in its copies. The body starts with the time at which make() was
 * called, as readTime() reads it, and is filled up with x.
 */
export class EventMaker {
  private readonly event: Buffer;
  private readonly idAt: number;
  private readonly timeAt: number;
  private made: number;

  /**
   * @param first the number in the first id; give another maker of the same topic numbers that this one does not
   * reach
   */
  constructor(topic: string, first: number, bodyBytes = BODY_BYTES) {
    this.event = message(
      [1, '0'.repeat(ID_DIGITS)],
      [2, topic],
      [3, '0'.repeat(TIME_DIGITS).padEnd(bodyBytes, 'x')],
    );
    this.idAt = HEADER_BYTES + 2;
    this.timeAt = this.event.length - bodyBytes;
    this.made = first;
  }

  /** Returns the next `count` events. */
  make(count: number): Buffer {
    const { length } = this.event;
    const all = Buffer.allocUnsafe(count * length);
    const now = Math.floor(performance.now() * 1000);
    for (let i = 0, at = 0; i < count; i++, at += length) {
      this.event.copy(all, at);
      digits(all, at + this.idAt, ID_DIGITS, this.made++);
      digits(all, at + this.timeAt, TIME_DIGITS, now);
    }
    return all;
  }
}

/** Returns the offset of the time in a delivered event that an EventMaker made for this topic. */
export function timeOffset(topic: string): number {
  return HEADER_BYTES + 2 + ID_DIGITS + 2 + Buffer.byteLength(topic) + 2;
}

/** Reads the time that an EventMaker wrote: microseconds of performance.now() of this process. */
export function readTime(bytes: Buffer, at: number): number {
  let time = 0;
  for (let i = at; i < at + TIME_DIGITS; i++) time = 10 * time + bytes[i] - 48;
  return time;
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(Math.floor(value / 128))];
}

/** Writes a number as `count` decimal digits. */
function digits(bytes: Buffer, at: number, count: number, value: number): void {
  let rest = value;
  for (let i = at + count - 1; i >= at; i--) {
    bytes[i] = 48 + (rest % 10);
    rest = Math.floor(rest / 10);
  }
}

/** Returns the cursor of the delivered event whose frame starts at `start`. */
export function cursorOf(bytes: Buffer, start: number): string {
  const end = start + HEADER_BYTES + bytes.readUInt32BE(start + 1);
  return bytes.toString('latin1', end - CURSOR_CHARACTERS, end);
}

/** Counts the messages of a stream, whose chunks may end anywhere. */
export class MessageCounter {
  count = 0;
  /** The beginning of a message whose end has not come yet. */
  private rest: Buffer | undefined;

  /** @param each is called for each message, with the offset of its frame in `bytes` */
  take(chunk: Buffer, each?: (bytes: Buffer, at: number) => void): void {
    const bytes = this.rest ? Buffer.concat([this.rest, chunk]) : chunk;
    let at = 0;
    while (at + HEADER_BYTES <= bytes.length) {
      const end = at + HEADER_BYTES + bytes.readUInt32BE(at + 1);
      if (end > bytes.length) break;
      each?.(bytes, at);
      this.count++;
      at = end;
    }
    this.rest = at < bytes.length ? bytes.subarray(at) : undefined;
  }
}
