import { TOPIC } from './event-fields.js';
import { FRAME_HEADER_BYTES, frameLength } from './frames.js';
import { FieldReader } from './protobuf.js';

/** Yields the topic of each of framed events, and the size of its frame in bytes. */
export function* framedTopics(
  events: Buffer,
): Iterable<{ readonly topic: string; readonly size: number }> {
  const fields = new FieldReader();
  for (let at = 0; at < events.length;) {
    const start = at + FRAME_HEADER_BYTES;
    const end = start + frameLength(events, at);
    let topic = '';
    fields.read(events, start, end);
    while (fields.next())
      if (fields.field === TOPIC) topic = events.toString('utf8', fields.start, fields.end);
    yield { topic, size: end - at };
    at = end;
  }
}
