import { Event } from './gen/feed/v1/feed.js';

/** The fields of an event that a producer sends. */
export interface EventToSend {
  readonly id: string;
  readonly topic: string;
  readonly body: string;
  readonly at: Date | undefined;
}

// The tags of Event's fields: the field's number << 3, and wire type 2, which is a length and bytes.
const ID_TAG = 0x0a;
const TOPIC_TAG = 0x12;
const BODY_TAG = 0x1a;

const HEADER_BYTES = 5;
/** More than all of a frame except its texts: the header, the tags and lengths of the texts, and the time. */
const BYTES_BESIDE_TEXTS = 64;
/** A UTF-16 code unit takes at most this many bytes in UTF-8. */
const MAX_UNIT_BYTES = 3;

/** Returns an upper bound of the size of the event's frame, in bytes. It reads the lengths of the texts only, so it is fast. */
export function maxFrameBytes({ id, topic, body }: EventToSend): number {
  return BYTES_BESIDE_TEXTS + MAX_UNIT_BYTES * (id.length + topic.length + body.length);
}

/**
 * Writes the gRPC frame of an event into `target` at `offset`, where there must be room for maxFrameBytes(). Returns the offset
 * after the frame. The message has the same bytes as Event.encode() makes, without the objects that Event.encode() makes for
 * each field.
 */
export function writeEventFrame(target: Buffer, offset: number, event: EventToSend): number {
  let end = offset + HEADER_BYTES;
  end = writeText(target, end, ID_TAG, event.id);
  end = writeText(target, end, TOPIC_TAG, event.topic);
  end = writeText(target, end, BODY_TAG, event.body);
  if (event.at) end = writeTime(target, end, event.at);
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

function writeTime(target: Buffer, offset: number, time: Date): number {
  // The encoding of an event that has only a time consists of that one field.
  const field = Event.encode({ id: '', topic: '', body: '', at: time, cursor: '' }).finish();
  target.set(field, offset);
  return offset + field.length;
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
