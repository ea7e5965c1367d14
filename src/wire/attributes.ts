import { BYTES, FieldReader } from './protobuf.js';
import { isValidUtf8 } from './utf8.js';

/** Event.attributes: a map, so each entry is a message of its own. */
export const ATTRIBUTES_FIELD = 6;
const KEY = 1;
const VALUE = 2;
const NAMES = ['', 'key', 'value'];

/** An event has at most this many attributes, and this many bytes of encoded entries. */
export const MAX_ATTRIBUTES = 64;
export const MAX_ATTRIBUTES_BYTES = 8 * 1024;
export const TOO_MANY_ATTRIBUTES = `there are more than ${MAX_ATTRIBUTES} attributes`;
export const TOO_LONG_ATTRIBUTES = `attributes take more than ${MAX_ATTRIBUTES_BYTES} bytes`;

/** Checks the attributes of one event after another. */
export class AttributesChecker {
  private readonly fields = new FieldReader();
  private count = 0;
  private bytes = 0;

  /** Call it before the first attribute of each event. */
  begin(): void {
    this.count = this.bytes = 0;
  }

  /** Returns what is wrong with the entry in source[start, end), or with all entries until now, or undefined. */
  problem(source: Buffer, start: number, end: number): string | undefined {
    this.bytes += end - start;
    if (++this.count > MAX_ATTRIBUTES) return TOO_MANY_ATTRIBUTES;
    if (this.bytes > MAX_ATTRIBUTES_BYTES) return TOO_LONG_ATTRIBUTES;
    const { fields } = this;
    let hasKey = false;
    let seen = 0;
    fields.read(source, start, end);
    while (fields.next()) {
      const { field } = fields;
      if (field > VALUE) continue;
      if (fields.type !== BYTES)
        return `the ${NAMES[field]} of an attribute has the wrong wire type`;
      if (seen & (1 << field)) return `an attribute has its ${NAMES[field]} twice`;
      seen |= 1 << field;
      if (!isValidUtf8(source, fields.start, fields.end))
        return `the ${NAMES[field]} of an attribute is not valid UTF-8`;
      if (field === KEY) hasKey = fields.end > fields.start;
    }
    if (fields.problem !== undefined) return `an attribute is not well-formed: ${fields.problem}`;
    return hasKey ? undefined : 'an attribute has an empty key';
  }
}
