import { BYTES, FieldReader, VARINT } from './protobuf.js';
import { isValidUtf8 } from './utf8.js';

const TOPIC = 1;
const AFTER_CURSOR = 2;
const SINCE = 4;
const HEARTBEAT = 6;
const NAMES = ['', 'topic', 'after_cursor', 'position', 'since', 'last', 'heartbeat'];
const TYPES = [-1, BYTES, BYTES, VARINT, BYTES, VARINT, BYTES];

/** An int32, and a negative one; protobuf.js misreads what lies between. */
const INT32_BYTES = 5;
const NEGATIVE_BYTES = 10;
const NANOS = 2;

/**
 * What is wrong with an encoded WatchRequest, or undefined if nothing is. To be asked before protobuf.js decodes it,
 * which looks at neither wire types nor UTF-8, and so makes another request of a bad one.
 */
export function watchRequestProblem(message: Buffer): string | undefined {
  const fields = new FieldReader();
  fields.read(message, 0, message.length);
  while (fields.next()) {
    const { field, start, end } = fields;
    if (field > HEARTBEAT) continue;
    if (fields.type !== TYPES[field]) return `${NAMES[field]} has the wrong wire type`;
    if (field === TOPIC || field === AFTER_CURSOR) {
      if (!isValidUtf8(message, start, end)) return `${NAMES[field]} is not valid UTF-8`;
    } else if (field === SINCE || field === HEARTBEAT) {
      const problem = timeProblem(message, start, end);
      if (problem !== undefined) return `${NAMES[field]} ${problem}`;
    } else if (isMisread(fields)) {
      return `${NAMES[field]} is out of range`;
    }
  }
  if (fields.problem === undefined) return undefined;
  return `it is not well-formed protobuf: ${fields.problem}`;
}

/** The same of a Timestamp or Duration, which have the same fields. */
function timeProblem(message: Buffer, start: number, end: number): string | undefined {
  const fields = new FieldReader();
  fields.read(message, start, end);
  while (fields.next()) {
    if (fields.field > NANOS) continue;
    if (fields.type !== VARINT) return 'has a field of the wrong wire type';
    if (fields.field === NANOS && isMisread(fields)) return 'is out of range';
  }
  return fields.problem === undefined ? undefined : `is not well-formed: ${fields.problem}`;
}

function isMisread({ start, end }: FieldReader): boolean {
  return end - start > INT32_BYTES && end - start < NEGATIVE_BYTES;
}
