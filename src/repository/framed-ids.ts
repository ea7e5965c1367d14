import { ID } from '../wire/event-fields.js';
import { FRAME_HEADER_BYTES, frameLength, writeFrameHeader } from '../wire/frames.js';
import { FieldReader } from '../wire/protobuf.js';
import { FrameWalk } from './frame-walk.js';

const fields = new FieldReader();
/** The memory of what framedIds() returns. */
let scratch = Buffer.allocUnsafe(64 * 1024);

/** Returns the id of a framed event, as a view of its bytes; empty if it has none. */
export function idOf(frame: Buffer): Buffer {
  return seekId(frame, FRAME_HEADER_BYTES, frame.length)
    ? frame.subarray(fields.start, fields.end)
    : frame.subarray(0, 0);
}

/**
 * Returns the ids of framed events, each in a frame of its own: all that is kept of removed events. The ids "x" and "yz"
 * become 00 00000001 "x" 00 00000002 "yz". The next call overwrites what this one returned.
 */
export function framedIds(events: Buffer): Buffer {
  if (scratch.length < events.length) scratch = Buffer.allocUnsafe(events.length); // an id is shorter than its event
  let end = 0;
  for (let at = 0; at < events.length;) {
    const start = at + FRAME_HEADER_BYTES;
    at = start + frameLength(events, at);
    const length = seekId(events, start, at)
      ? events.copy(scratch, end + FRAME_HEADER_BYTES, fields.start, fields.end)
      : 0;
    writeFrameHeader(scratch, end, length);
    end += FRAME_HEADER_BYTES + length;
  }
  return scratch.subarray(0, end);
}

/** Returns one id of those that framedIds() returned. */
export function framedId(ids: Buffer, index: number): Buffer {
  return new FrameWalk(ids).at(index).subarray(FRAME_HEADER_BYTES);
}

/** Moves `fields` to the id of the event bytes[start, end). Returns false if it has none. */
function seekId(bytes: Buffer, start: number, end: number): boolean {
  fields.read(bytes, start, end);
  while (fields.next()) if (fields.field === ID) return true;
  return false;
}
