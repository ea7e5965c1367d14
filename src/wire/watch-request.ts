import { BadMessageError } from './frames.js';
import { BYTES, FieldReader, VARINT } from './protobuf.js';
import { isValidUtf8 } from './utf8.js';

/** A google.protobuf.Timestamp or Duration. */
export interface Time {
  readonly seconds: number;
  readonly nanos: number;
}

/** Where a watch starts. One of these is there, or none. */
interface Start {
  readonly afterCursor?: string;
  /** A StartPosition, or a number that is none. */
  readonly position?: number;
  readonly since?: Time;
  readonly last?: number;
}

export interface WatchRequest extends Start {
  readonly topic: string;
  readonly heartbeat?: Time;
}

const TOPIC = 1;
const AFTER_CURSOR = 2;
const POSITION = 3;
const SINCE = 4;
const LAST = 5;
const HEARTBEAT = 6;
const NAMES = ['', 'topic', 'after_cursor', 'position', 'since', 'last', 'heartbeat'];
const TYPES = [-1, BYTES, BYTES, VARINT, BYTES, VARINT, BYTES];

const SECONDS = 1;
const NANOS = 2;

/** The longest number of 32 bits, and the length of a negative one. Nothing writes one of a length between. */
const INT32_BYTES = 5;
const NEGATIVE_BYTES = 10;

/**
 * Reads an encoded WatchRequest. Of a field that is there twice the last one counts, and so it does of the fields that say
 * where to start.
 *
 * Not by protobuf.js, which looks at neither wire types nor UTF-8, and so makes another request of a bad one.
 *
 * @throws BadMessageError
 */
export function readWatchRequest(message: Buffer): WatchRequest {
  const fields = new FieldReader();
  let topic = '';
  let start: Start = {};
  let heartbeat: Time | undefined;
  fields.read(message, 0, message.length);
  while (fields.next()) {
    const { field } = fields;
    if (field > HEARTBEAT) continue;
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
    }
  }
  if (fields.problem !== undefined)
    throw new BadMessageError(`it is not well-formed protobuf: ${fields.problem}`);
  return { topic, ...start, heartbeat };
}

function readText(message: Buffer, { field, start, end }: FieldReader): string {
  if (!isValidUtf8(message, start, end)) throw badField(field, 'is not valid UTF-8');
  return message.toString('utf8', start, end);
}

/** Reads a Timestamp or a Duration, which have the same fields. */
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

/** @param field the field of the request that the number is of, or is in */
function readInt32(number: FieldReader, field: number): number {
  const bytes = number.end - number.start;
  if (bytes > INT32_BYTES && bytes < NEGATIVE_BYTES) throw badField(field, 'is out of range');
  return number.int32();
}

function badField(field: number, problem: string): BadMessageError {
  return new BadMessageError(`${NAMES[field]} ${problem}`);
}
