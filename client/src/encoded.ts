import { BinaryReader } from '@bufbuild/protobuf/wire';
import type { Event } from './gen/feed/v1/feed.js';

/**
 * The name of an event's bytes, as a server sent them, without the cursor. An upload passes these on as they are, with what it can't decode.
 * A cursor means nothing in another log, but counts for the largest size of an event there.
 */
const ENCODED: unique symbol = Symbol('encoded');

/** The numbers of an event's fields. */
const ID = 1;
const CURSOR = 5;

/**
 * Decodes events that are only to be passed on: of their fields, only the id and the cursor are read. The others are empty, and stay
 * in the bytes.
 */
export const EncodedEvent = {
  decode(bytes: Uint8Array): Event {
    const event = {
      id: '',
      topic: '',
      body: '',
      at: undefined,
      cursor: '',
      attributes: {},
      [ENCODED]: bytes,
    };
    const reader = new BinaryReader(bytes);
    while (reader.pos < reader.len) {
      const start = reader.pos;
      const [field, type] = reader.tag();
      if (field === ID) event.id = reader.string();
      else if (field === CURSOR) {
        event.cursor = reader.string();
        event[ENCODED] = without(bytes, start, reader.pos);
      } else reader.skip(type, field);
    }
    return event;
  },
};

/** Returns bytes without those from `start` up to `end`. A server of this project sends the cursor last, so that nothing is copied. */
function without(bytes: Uint8Array, start: number, end: number): Uint8Array {
  if (end === bytes.length) return bytes.subarray(0, start);
  return Buffer.concat([bytes.subarray(0, start), bytes.subarray(end)]);
}

/** Returns the bytes, without the cursor, of an event that EncodedEvent has decoded; undefined for any other. */
export function encodedOf(event: unknown): Uint8Array | undefined {
  return typeof event === 'object' && event !== null && ENCODED in event
    ? (event[ENCODED] as Uint8Array)
    : undefined;
}
