import { isUtf8 } from 'node:buffer';
import {
  ATTRIBUTES_FIELD,
  MAX_ATTRIBUTES,
  MAX_ATTRIBUTES_BYTES,
  TOO_LONG_ATTRIBUTES,
  TOO_MANY_ATTRIBUTES,
} from './attributes.js';
import { AT, BODY, ID, TOPIC } from './event-fields.js';
import { mayBeEvent } from './event-shape.js';
import { BadMessageError, FRAME_HEADER_BYTES, writeFrameHeader } from './frames.js';
import { BYTES, bytesField, varintBytes, writeVarint } from './protobuf.js';
import { parseTime } from './rfc3339.js';
import { encodeTime } from './timestamp.js';
import type { Time } from './watch-request.js';

// The fields of an entry of a map.
const KEY = 1;
const VALUE = 2;

/** The names that an event in JSON may have. */
const NAMES: ReadonlySet<string> = new Set(['id', 'topic', 'body', 'at', 'cursor', 'attributes']);

/**
 * Reads an event in JSON and returns its frame, as an upload over gRPC has it.
 *
 * @param topic that of an event that names none
 * @throws BadMessageError
 */
export function frameOfJson(json: Buffer, topic: string): Buffer {
  const event = parseObject(json);
  for (const name of Object.keys(event))
    if (!NAMES.has(name))
      throw new BadMessageError(
        `"${name.slice(0, 40)}" is no field of an event: there are ${[...NAMES].join(', ')}`,
      );
  return eventFrame({
    id: textOf(event, 'id'),
    topic: textOf(event, 'topic') || topic,
    body: textOf(event, 'body'),
    at: timeOf(event),
    attributes: attributesOf(event),
  });
}

/** Returns the frame of an event that has a topic, and a body of these bytes. @throws BadMessageError */
export function frameOfText(body: Buffer, topic: string): Buffer {
  return eventFrame({ id: '', topic, body: utf8(body), at: undefined, attributes: [] });
}

/** Parsing a shorter text takes some milliseconds at most, whatever it is. */
const LONG_JSON = 64 * 1024;

type JsonObject = Readonly<Record<string, unknown>>;

function parseObject(json: Buffer): JsonObject {
  const text = utf8(json);
  if (json.length > LONG_JSON && !mayBeEvent(json))
    throw new BadMessageError(
      'it has more values than an event, or values deeper in others: JSON in a body goes as a text',
    );
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The message of V8's error quotes the text, and the log must not have what events contain.
    throw new BadMessageError('it is not JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new BadMessageError('it is no object of JSON, such as {"topic":"orders","body":"hello"}');
  return value as JsonObject;
}

function utf8(bytes: Buffer): string {
  if (!isUtf8(bytes)) throw new BadMessageError('it is not valid UTF-8');
  return bytes.toString('utf8');
}

function textOf(event: JsonObject, name: 'id' | 'topic' | 'body'): string {
  const value = event[name] ?? '';
  if (typeof value !== 'string')
    throw new BadMessageError(
      name === 'body'
        ? 'body must be a text: JSON in it goes as a text, too'
        : `${name} must be a text`,
    );
  return wellFormed(value, name);
}

function wellFormed(text: string, name: string): string {
  if (!text.isWellFormed()) throw new BadMessageError(`${name} is not valid UTF-8`);
  return text;
}

function timeOf({ at }: JsonObject): Time | undefined {
  if (at === undefined || at === null) return undefined;
  const time = typeof at === 'string' ? parseTime(at) : undefined;
  if (!time)
    throw new BadMessageError('at must be a time of RFC 3339, such as "2026-01-31T09:00:00Z"');
  return time;
}

function attributesOf({ attributes }: JsonObject): Buffer[] {
  if (attributes === undefined || attributes === null) return [];
  if (typeof attributes !== 'object' || Array.isArray(attributes))
    throw new BadMessageError('attributes must be an object of texts');
  const keys = Object.keys(attributes);
  // A line of 64 KiB has room for 10,000 attributes. Encoding all of them first would hold up every other call.
  if (keys.length > MAX_ATTRIBUTES) throw new BadMessageError(TOO_MANY_ATTRIBUTES);
  let bytes = 0;
  return keys.map((key) => {
    const value: unknown = (attributes as JsonObject)[key];
    if (typeof value !== 'string')
      throw new BadMessageError('attributes must be an object of texts');
    // Without tags and lengths. The checker of all uploads counts those, too.
    bytes += Buffer.byteLength(key) + Buffer.byteLength(value);
    if (bytes > MAX_ATTRIBUTES_BYTES) throw new BadMessageError(TOO_LONG_ATTRIBUTES);
    const fields = [bytesField(KEY, Buffer.from(wellFormed(key, 'the key of an attribute')))];
    // Without the field of an empty value, the event is not larger than the one that a watch has printed.
    if (value !== '')
      fields.push(bytesField(VALUE, Buffer.from(wellFormed(value, 'the value of an attribute'))));
    return bytesField(ATTRIBUTES_FIELD, Buffer.concat(fields));
  });
}

interface NewEvent {
  readonly id: string;
  readonly topic: string;
  readonly body: string;
  readonly at: Time | undefined;
  /** Encoded, with tag and length. */
  readonly attributes: readonly Buffer[];
}

function eventFrame({ id, topic, body, at, attributes }: NewEvent): Buffer {
  const texts: readonly (readonly [number, string, number])[] = [
    [ID, id, Buffer.byteLength(id)],
    [TOPIC, topic, Buffer.byteLength(topic)],
    [BODY, body, Buffer.byteLength(body)],
  ];
  const others = at ? [bytesField(AT, encodeTime(at)), ...attributes] : attributes;
  let length = 0;
  for (const [, , bytes] of texts) if (bytes > 0) length += 1 + varintBytes(bytes) + bytes;
  for (const other of others) length += other.length;
  const framed = Buffer.allocUnsafe(FRAME_HEADER_BYTES + length);
  writeFrameHeader(framed, 0, length);
  let end = FRAME_HEADER_BYTES;
  for (const [field, text, bytes] of texts) {
    if (bytes === 0) continue;
    framed[end] = (field << 3) | BYTES;
    end = writeVarint(framed, end + 1, bytes);
    end += framed.write(text, end, 'utf8');
  }
  for (const other of others) end += other.copy(framed, end);
  return framed;
}
