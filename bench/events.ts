// Framed messages made and counted by the thousand: a benchmark's client must not be what it measures.
const HEADER_BYTES = 5;
const ID_DIGITS = 12;
const TIME_DIGITS = 16;
const BODY_BYTES = 100;
/** An event's last field, once it is stored. */
const CURSOR_CHARACTERS = 16;

/** A framed message of fields, each its number and a text or a number. */
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

/** Framed events of one topic with 100 bytes of body, each with another id, many at a time. */
export class EventMaker {
  private readonly event: Buffer;
  private readonly idAt: number;
  private readonly timeAt: number;
  private made: number;

  /** @param first the number that the first id is made of: no other maker of the topic has these */
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

/** Where an event that EventMaker made for a topic has its time, once the service has stored it. */
export function timeOffset(topic: string): number {
  return HEADER_BYTES + 2 + ID_DIGITS + 2 + Buffer.byteLength(topic) + 2;
}

/** Microseconds of this process's clock. */
export function readTime(bytes: Buffer, at: number): number {
  let time = 0;
  for (let i = at; i < at + TIME_DIGITS; i++) time = 10 * time + bytes[i] - 48;
  return time;
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(Math.floor(value / 128))];
}

function digits(bytes: Buffer, at: number, count: number, value: number): void {
  let rest = value;
  for (let i = at + count - 1; i >= at; i--) {
    bytes[i] = 48 + (rest % 10);
    rest = Math.floor(rest / 10);
  }
}

/** The cursor of a delivered event whose frame starts somewhere. */
export function cursorOf(bytes: Buffer, start: number): string {
  const end = start + HEADER_BYTES + bytes.readUInt32BE(start + 1);
  return bytes.toString('latin1', end - CURSOR_CHARACTERS, end);
}

/** Counts the messages of a stream, and shows those that are wanted. */
export class MessageCounter {
  count = 0;
  private rest: Buffer | undefined;

  /** @param each gets where each message starts: its frame's header is there */
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
