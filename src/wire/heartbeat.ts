import { type Cursor, formatCursor } from './cursor.js';
import type { EventBatch } from './event-batch.js';
import { frame } from './frames.js';
import { bytesField } from './protobuf.js';

/** An event with only topic and cursor set: nothing happened, and this is how far the log was read. */
export function heartbeatEvent(topic: string, cursor: Cursor): EventBatch {
  const event = Buffer.concat([
    bytesField(2, Buffer.from(topic)),
    bytesField(5, Buffer.from(formatCursor(cursor))),
  ]);
  return { bytes: frame(event), count: 0, last: cursor.position };
}
