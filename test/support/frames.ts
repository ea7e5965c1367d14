import { type Frames, messagesIn, type ReceivedFrames } from '../../src/wire/frames.js';
import { frame } from '../../src/wire/frames.js';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { codec } from './client.js';

/** Events as a handler sends them. */
export function eventFrames(...events: Partial<Event>[]): Frames {
  return {
    bytes: Buffer.concat(events.map((event) => frame(codec.event.serialize(event)))),
    count: events.length,
  };
}

/** The ids of events as a handler receives them. */
export function idsIn({ pieces }: ReceivedFrames): string[] {
  return pieces.flatMap((piece) =>
    [...messagesIn(piece)].map((message) => codec.event.deserialize(message).id),
  );
}
