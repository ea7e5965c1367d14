import { type Cursor, CURSOR_FIELD, formatCursor } from './cursor.js';
import type { EventBatch } from './event-batch.js';
import { frame } from './frames.js';
import { bytesField } from './protobuf.js';

const TOPIC_FIELD = 2;

/**
 * Returns a heartbeat: an Event with only topic and cursor set. It says that the watch has read the log up to
 * `cursor` and that there is nothing to send. It is not counted as an event.
 */
export function heartbeatEvent(topic: string, cursor: Cursor): EventBatch {
  const event = Buffer.concat([
    bytesField(TOPIC_FIELD, Buffer.from(topic)),
    bytesField(CURSOR_FIELD, Buffer.from(formatCursor(cursor))),
  ]);
  return { bytes: frame(event), count: 0, last: cursor.position };
}
