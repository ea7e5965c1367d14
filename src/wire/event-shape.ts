const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_ARRAY = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** An event is an object, and its attributes are one in it. */
const MOST_DEPTH = 2;
/** The commas and colons of an event with 64 attributes are 139. A name may be there several times. */
const MOST_SIGNS = 1_000;

/**
 * Returns false for JSON that has more values, or values deeper in others, than an event has. Parsing 6 MiB of brackets takes two seconds and
 * hundreds of MiB; this takes some milliseconds and no memory. Of bytes that are no JSON, it may return either.
 */
export function mayBeEvent(json: Buffer): boolean {
  let depth = 0;
  let signs = 0;
  let isInText = false;
  for (let i = 0; i < json.length; i++) {
    const byte = json[i];
    if (isInText) {
      if (byte === BACKSLASH) i++;
      else if (byte === QUOTE) isInText = false;
    } else if (byte === QUOTE) isInText = true;
    else if (byte === COMMA || byte === COLON) {
      if (++signs > MOST_SIGNS) return false;
    } else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
      if (++depth > MOST_DEPTH) return false;
    } else if (byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) depth--;
  }
  return true;
}
