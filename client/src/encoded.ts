import type { Event } from './gen/feed/v1/feed.js';

/** The name of an event's bytes, as a server sent them. An upload passes these on as they are, with what it can't decode. */
export const ENCODED: unique symbol = Symbol('encoded');

export interface EncodedEvent extends Event {
  [ENCODED]?: Uint8Array;
}

/** Returns the bytes of an event that has them. */
export function encodedOf(event: unknown): Uint8Array | undefined {
  return typeof event === 'object' && event !== null && ENCODED in event
    ? (event[ENCODED] as Uint8Array)
    : undefined;
}
