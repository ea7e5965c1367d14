import { Timestamp } from './gen/google/protobuf/timestamp.js';

/** The fields of an event that a producer sends. */
export interface EventToSend {
  readonly id: string;
  readonly topic: string;
  readonly body: string;
  readonly at: Date | undefined;
  readonly attributes: Readonly<Record<string, string>> | undefined;
}

// The tags of Event's fields: the field's number << 3, and wire type 2, which is a length and bytes.
const ID_TAG = 0x0a;
const TOPIC_TAG = 0x12;
const BODY_TAG = 0x1a;
const AT_TAG = 0x22;
const ATTRIBUTES_TAG = 0x32;
// An attribute is a message with these two texts.
const KEY_TAG = 0x0a;
const VALUE_TAG = 0x12;

const HEADER_BYTES = 5;
/** More than all of a frame except its texts: the header, the tags and lengths of the texts, and the time. */
const BYTES_BESIDE_TEXTS = 64;
/** More than the tags and lengths of an attribute. */
const BYTES_OF_ATTRIBUTE = 18;
/** A UTF-16 code unit takes at most this many bytes in UTF-8. */
const MAX_UNIT_BYTES = 3;

/** Returns an upper bound of the size of the event's frame, in bytes. It reads the lengths of the texts only, so it is fast. */
export function maxFrameBytes({ id, topic, body, attributes }: EventToSend): number {
  let bytes = BYTES_BESIDE_TEXTS + MAX_UNIT_BYTES * (id.length + topic.length + body.length);
  if (!attributes) return bytes;
  for (const [key, value] of Object.entries(attributes))
    bytes += BYTES_OF_ATTRIBUTE + MAX_UNIT_BYTES * (key.length + value.length);
  return bytes;
}

/**
 * Writes the gRPC frame of an event into `target` at `offset`, where there must be room for maxFrameBytes(). Returns the offset
 * after the frame. The message has the same bytes as Event.encode() makes (but for times before 1970), without the objects that Event.encode() makes for
 * each field.
 */
export function writeEventFrame(target: Buffer, offset: number, event: EventToSend): number {
  let end = offset + HEADER_BYTES;
  end = writeText(target, end, ID_TAG, event.id);
  end = writeText(target, end, TOPIC_TAG, event.topic);
  end = writeText(target, end, BODY_TAG, event.body);
  if (event.at) end = writeTime(target, end, event.at);
  if (event.attributes) {
    for (const [key, value] of Object.entries(event.attributes))
      end = writeAttribute(target, end, key, value);
  }
  target[offset] = 0; // not compressed
  target.writeUInt32BE(end - offset - HEADER_BYTES, offset + 1);
  return end;
}

function writeText(target: Buffer, offset: number, tag: number, text: string): number {
  if (text === '') return offset;
  target[offset] = tag;
  const length = Buffer.byteLength(text);
  const start = writeVarint(target, offset + 1, length);
  target.write(text, start);
  return start + length;
}

function writeAttribute(target: Buffer, offset: number, key: string, value: string): number {
  target[offset] = ATTRIBUTES_TAG;
  const length = textBytes(key) + textBytes(value);
  const start = writeVarint(target, offset + 1, length);
  return writeText(target, writeText(target, start, KEY_TAG, key), VALUE_TAG, value);
}

/** Returns how many bytes writeText() writes. */
function textBytes(text: string): number {
  if (text === '') return 0;
  const length = Buffer.byteLength(text);
  return 1 + varintBytes(length) + length;
}

function writeTime(target: Buffer, offset: number, time: Date): number {
  // Event.encode() makes a Timestamp of negative nanoseconds, which is none, of most times before 1970.
  const milliseconds = time.getTime();
  const seconds = Math.floor(milliseconds / 1_000);
  const nanos = (milliseconds - seconds * 1_000) * 1e6;
  const message = Timestamp.encode({ seconds, nanos }).finish();
  target[offset] = AT_TAG;
  const start = writeVarint(target, offset + 1, message.length);
  target.set(message, start);
  return start + message.length;
}

function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value; rest > 0x7f; rest >>>= 7) bytes++;
  return bytes;
}

function writeVarint(target: Buffer, offset: number, value: number): number {
  let rest = value;
  let end = offset;
  while (rest > 0x7f) {
    target[end++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  target[end++] = rest;
  return end;
}
