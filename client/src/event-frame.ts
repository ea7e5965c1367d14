import { Event } from './gen/feed/v1/feed.js';

/** What a producer sends of an event. */
export interface EventToSend {
  readonly id: string;
  readonly topic: string;
  readonly body: string;
  readonly at: Date | undefined;
}

// The tags of Event's fields: number << 3 | 2, for a length and bytes.
const ID_TAG = 0x0a;
const TOPIC_TAG = 0x12;
const BODY_TAG = 0x1a;

const HEADER_BYTES = 5;
/** Beside its texts, a frame has its header, the tags and lengths of four fields, and a time: less than this. */
const OTHER_BYTES = 64;
/** The most that a UTF-16 code unit takes in UTF-8. */
const UNIT_BYTES = 3;

/** Returns a size that the frame of the event does not exceed, in bytes, without a look at its texts. */
export function mostFrameBytes({ id, topic, body }: EventToSend): number {
  return OTHER_BYTES + UNIT_BYTES * (id.length + topic.length + body.length);
}

/**
 * Writes the gRPC frame of an event into `target`, which has room for mostFrameBytes(). The bytes are those of
 * Event.encode(), which takes several times as long, because it makes an object for each field. Returns the offset after it.
 */
export function writeEventFrame(target: Buffer, at: number, event: EventToSend): number {
  let end = at + HEADER_BYTES;
  end = writeText(target, end, ID_TAG, event.id);
  end = writeText(target, end, TOPIC_TAG, event.topic);
  end = writeText(target, end, BODY_TAG, event.body);
  if (event.at) end = writeTime(target, end, event.at);
  target[at] = 0; // not compressed
  target.writeUInt32BE(end - at - HEADER_BYTES, at + 1);
  return end;
}

function writeText(target: Buffer, at: number, tag: number, text: string): number {
  if (text === '') return at;
  target[at] = tag;
  const length = Buffer.byteLength(text);
  const start = writeVarint(target, at + 1, length);
  target.write(text, start);
  return start + length;
}

function writeTime(target: Buffer, at: number, time: Date): number {
  // An event that has nothing but a time is that field alone.
  const field = Event.encode({ id: '', topic: '', body: '', at: time, cursor: '' }).finish();
  target.set(field, at);
  return at + field.length;
}

function writeVarint(target: Buffer, at: number, value: number): number {
  let rest = value;
  let end = at;
  while (rest > 0x7f) {
    target[end++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  target[end++] = rest;
  return end;
}
