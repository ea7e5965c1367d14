/** Protobuf's wire types. Groups (3 and 4) are missing because FieldReader refuses them. */
export const VARINT = 0;
const FIXED64 = 1;
export const BYTES = 2;
const FIXED32 = 5;

const MAX_VARINT_BYTES = 10;

/**
 * Walks over the fields of an encoded message without decoding or copying them. Call read() for a message, then
 * next() until it returns false, then look at `problem`. One reader can read many messages, one after another.
 *
 * In the chat message 12 02 68 69 ({text: "hi"}), next() finds field 2 of type BYTES: `tagStart` is 0, `start` 2 and
 * `end` 4.
 */
export class FieldReader {
  /** The number of the current field. */
  field = 0;
  /** The wire type of the current field. */
  type = 0;
  /** The offset of the current field's tag. */
  tagStart = 0;
  /** The current field's value is buffer[start, end). A value of type BYTES starts after its length. */
  start = 0;
  end = 0;
  /** Says what is wrong with the encoding if next() returned false because of it; else undefined. */
  problem: string | undefined;

  private buffer: Buffer = Buffer.alloc(0);
  private position = 0;
  private limit = 0;

  /** Begins to read the message in buffer[start, end). */
  read(buffer: Buffer, start: number, end: number): void {
    this.buffer = buffer;
    this.position = start;
    this.limit = end;
    this.problem = undefined;
  }

  /** Moves to the next field. Returns false at the end of the message, and where the encoding is wrong. */
  next(): boolean {
    let position = this.position;
    if (position >= this.limit) return false;
    this.tagStart = position;
    const buffer = this.buffer;
    let tag = buffer[position++];
    if (tag >= 0x80) {
      tag &= 0x7f;
      let shift = 7;
      let byte: number;
      do {
        if (position >= this.limit) return this.fail('it ends inside a field');
        if (shift > 28) return this.fail('a field number is out of range');
        byte = buffer[position++];
        tag += (byte & 0x7f) * 2 ** shift;
        shift += 7;
      } while (byte >= 0x80);
      if (tag > 0xffffffff) return this.fail('a field number is out of range');
    }
    this.type = tag & 7;
    this.field = tag >>> 3;
    if (this.field === 0) return this.fail('it has a field number 0');
    switch (this.type) {
      case BYTES: {
        let length = position < this.limit ? buffer[position++] : 0x100;
        if (length >= 0x80) {
          if (length === 0x100) return this.fail('it ends inside a field');
          length &= 0x7f;
          let scale = 0x80;
          let byte: number;
          do {
            if (position >= this.limit) return this.fail('it ends inside a field');
            if (scale > 2 ** 28) return this.fail('a length is too long');
            byte = buffer[position++];
            length += (byte & 0x7f) * scale;
            scale *= 0x80;
          } while (byte >= 0x80);
        }
        this.start = position;
        position += length;
        break;
      }
      case VARINT:
        this.start = position;
        do {
          if (position >= this.limit) return this.fail('it ends inside a field');
          if (position - this.start >= MAX_VARINT_BYTES) return this.fail('a number is too long');
        } while (buffer[position++] >= 0x80);
        // Nine bytes hold 63 bits, so the tenth may hold one. Some decoders refuse a number with more.
        if (position - this.start === MAX_VARINT_BYTES && buffer[position - 1] > 1)
          return this.fail('a number is over 64 bits');
        break;
      case FIXED64:
        this.start = position;
        position += 8;
        break;
      case FIXED32:
        this.start = position;
        position += 4;
        break;
      default:
        return this.fail(`field ${this.field} is a group, or of an unknown wire type`);
    }
    if (position > this.limit) return this.fail('it ends inside a field');
    this.end = position;
    this.position = position;
    return true;
  }

  /** Returns the current field, of type VARINT, decoded as an int64. The result is inexact beyond 2^53. */
  varint(): number {
    const last = this.end - 1;
    let value = 0;
    if (this.end - this.start < MAX_VARINT_BYTES) {
      for (let i = last; i >= this.start; i--) value = value * 0x80 + (this.buffer[i] & 0x7f);
      return value;
    }
    let wide = 0n;
    for (let i = last; i >= this.start; i--) wide = (wide << 7n) | BigInt(this.buffer[i] & 0x7f);
    return Number(BigInt.asIntN(64, wide));
  }

  /** Returns the low 32 bits of the current field, of type VARINT, as a signed number. */
  int32(): number {
    // Five bytes hold 35 bits, which a number holds exactly. `|` keeps the low 32 of them.
    const last = Math.min(this.end, this.start + 5) - 1;
    let value = 0;
    for (let i = last; i >= this.start; i--) value = value * 0x80 + (this.buffer[i] & 0x7f);
    return value | 0;
  }

  private fail(problem: string): false {
    this.problem = problem;
    return false;
  }
}

/** Writes an unsigned number of up to 2^53 as a varint. Returns the offset of the first byte after it. */
export function writeVarint(target: Buffer, offset: number, value: number): number {
  while (value >= 0x80) {
    target[offset++] = (value % 0x80) | 0x80;
    value = Math.floor(value / 0x80);
  }
  target[offset++] = value;
  return offset;
}

/** Returns how many bytes writeVarint() writes for a number. */
export function varintBytes(value: number): number {
  let bytes = 1;
  for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes++;
  return bytes;
}

/** Encodes a field of type BYTES, with its tag and length. The field's number must be below 16. */
export function bytesField(number: number, value: Uint8Array): Buffer {
  const head = 1 + varintBytes(value.length);
  const encoded = Buffer.allocUnsafe(head + value.length);
  encoded[0] = (number << 3) | BYTES;
  writeVarint(encoded, 1, value.length);
  encoded.set(value, head);
  return encoded;
}
