import { type Frames, messagesIn, type ReceivedFrames } from '../../src/wire/frames.js';
import { frame } from '../../src/wire/frames.js';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { codec } from './client.js';

/** Returns events as the framed bytes that a handler sends. */
export function eventFrames(...events: Partial<Event>[]): Frames {
  return {
    bytes: Buffer.concat(events.map((event) => frame(codec.event.serialize(event)))),
    count: events.length,
  };
}

/** Returns the ids of the events in the frames that a handler receives. */
export function idsIn({ pieces }: ReceivedFrames): string[] {
  return pieces.flatMap((piece) =>
    [...messagesIn(piece)].map((message) => codec.event.deserialize(message).id),
  );
}
