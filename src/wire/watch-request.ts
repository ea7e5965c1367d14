import { BadMessageError } from './frames.js';
import { BYTES, FieldReader, VARINT } from './protobuf.js';
import { isValidUtf8 } from './utf8.js';

/** A google.protobuf.Timestamp or Duration. */
export interface Time {
  readonly seconds: number;
  readonly nanos: number;
}

/** Where a watch starts. At most one of the fields is set. */
interface Start {
  readonly afterCursor?: string;
  /** A StartPosition, or another number, if the client sent one. */
  readonly position?: number;
  readonly since?: Time;
  readonly last?: number;
}

export interface WatchRequest extends Start {
  /** The topics and patterns of the watch, in the request's order. They are not checked. */
  readonly topics: readonly string[];
  readonly heartbeat?: Time;
  /** True if the watch starts after `afterCursor` also where events after it were removed. */
  readonly skipRemoved?: boolean;
}

/** The most topics and patterns of a request. */
export const MAX_TOPICS = 1_000;

const TOPIC = 1;
const AFTER_CURSOR = 2;
const POSITION = 3;
const SINCE = 4;
const LAST = 5;
const HEARTBEAT = 6;
const TOPICS = 7;
const SKIP_REMOVED = 8;
const NAMES = [
  '',
  'topic',
  'after_cursor',
  'position',
  'since',
  'last',
  'heartbeat',
  'topics',
  'skip_removed',
];
/** The wire type of each field, by its number. */
const TYPES = [-1, BYTES, BYTES, VARINT, BYTES, VARINT, BYTES, BYTES, VARINT];

// The fields of Timestamp and Duration.
const SECONDS = 1;
const NANOS = 2;

/** A number of 32 bits takes up to 5 bytes, or 10 if it is negative. No encoder writes another length. */
const MAX_POSITIVE_INT32_BYTES = 5;
const NEGATIVE_INT32_BYTES = 10;

/**
 * Reads an encoded WatchRequest. If a field other than `topics` appears twice, the last one counts. The fields that say where
 * to start count as one field.
 *
 * protobuf.js can't do this: it checks neither wire types nor UTF-8, so from a malformed request it makes a different
 * one.
 *
 * @throws BadMessageError if the request is malformed
 */
export function readWatchRequest(message: Buffer): WatchRequest {
  const fields = new FieldReader();
  let topic = '';
  const more: string[] = [];
  let start: Start = {};
  let heartbeat: Time | undefined;
  let skipRemoved = false;
  fields.read(message, 0, message.length);
  while (fields.next()) {
    const { field } = fields;
    if (field > SKIP_REMOVED) continue;
    if (fields.type !== TYPES[field]) throw badField(field, 'has the wrong wire type');
    switch (field) {
      case TOPIC:
        topic = readText(message, fields);
        break;
      case AFTER_CURSOR:
        start = { afterCursor: readText(message, fields) };
        break;
      case POSITION:
        start = { position: readInt32(fields, field) };
        break;
      case SINCE:
        start = { since: readTime(message, fields) };
        break;
      case LAST:
        start = { last: readInt32(fields, field) >>> 0 };
        break;
      case HEARTBEAT:
        heartbeat = readTime(message, fields);
        break;
      case TOPICS:
        // One more than may be there is enough to refuse the request.
        if (more.length <= MAX_TOPICS) more.push(readText(message, fields));
        break;
      case SKIP_REMOVED:
        skipRemoved = fields.varint() !== 0;
        break;
    }
  }
  if (fields.problem !== undefined)
    throw new BadMessageError(`it is not well-formed protobuf: ${fields.problem}`);
  // A request without any topic is one of an empty topic, which is refused as a topic.
  const topics = topic === '' && more.length > 0 ? more : [topic, ...more];
  return { topics, ...start, heartbeat, skipRemoved };
}

function readText(message: Buffer, { field, start, end }: FieldReader): string {
  if (!isValidUtf8(message, start, end)) throw badField(field, 'is not valid UTF-8');
  return message.toString('utf8', start, end);
}

/** Reads the current field: a Timestamp or a Duration, which have the same fields. */
function readTime(message: Buffer, { field, start, end }: FieldReader): Time {
  const fields = new FieldReader();
  let seconds = 0;
  let nanos = 0;
  fields.read(message, start, end);
  while (fields.next()) {
    if (fields.field > NANOS) continue;
    if (fields.type !== VARINT) throw badField(field, 'has a field of the wrong wire type');
    if (fields.field === SECONDS) seconds = fields.varint();
    else nanos = readInt32(fields, field);
  }
  if (fields.problem !== undefined) throw badField(field, `is not well-formed: ${fields.problem}`);
  return { seconds, nanos };
}

/** @param field the field of the request that is the number, or contains it; an error names it */
function readInt32(number: FieldReader, field: number): number {
  const bytes = number.end - number.start;
  if (bytes > MAX_POSITIVE_INT32_BYTES && bytes < NEGATIVE_INT32_BYTES)
    throw badField(field, 'is out of range');
  return number.int32();
}

function badField(field: number, problem: string): BadMessageError {
  return new BadMessageError(`${NAMES[field]} ${problem}`);
}
