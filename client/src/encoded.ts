import { BinaryReader } from '@bufbuild/protobuf/wire';
import type { Event } from './gen/feed/v1/feed.js';

/** The name of an event's bytes, as a server sent them. An upload passes these on as they are, with what it can't decode. */
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
      const [field, type] = reader.tag();
      if (field === ID) event.id = reader.string();
      else if (field === CURSOR) event.cursor = reader.string();
      else reader.skip(type, field);
    }
    return event;
  },
};

/** Returns the bytes of an event that EncodedEvent has decoded; undefined for any other. */
export function encodedOf(event: unknown): Uint8Array | undefined {
  return typeof event === 'object' && event !== null && ENCODED in event
    ? (event[ENCODED] as Uint8Array)
    : undefined;
}
