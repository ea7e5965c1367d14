import { type Cursor, CURSOR_FIELD, formatCursor } from './cursor.js';
import { TOPIC } from './event-fields.js';
import type { EventBatch } from './event-batch.js';
import { frame } from './frames.js';
import { bytesField } from './protobuf.js';

/**
 * Returns a heartbeat: an Event with only topic and cursor set. It says that the watch has read the log up to
 * `cursor` and that there is nothing to send. It is not counted as an event.
 */
export function heartbeatEvent(topic: string, cursor: Cursor): EventBatch {
  const event = Buffer.concat([
    bytesField(TOPIC, Buffer.from(topic)),
    bytesField(CURSOR_FIELD, Buffer.from(formatCursor(cursor))),
  ]);
  return { bytes: frame(event), count: 0, last: cursor.position };
}
