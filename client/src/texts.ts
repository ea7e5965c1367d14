/**
 * True for a text that UTF-8 can have. It has no half of a surrogate pair: two ids that differ in one would be the same to the server.
 */
export function isText(value: unknown): value is string {
  return typeof value === 'string' && value.isWellFormed();
}

/** Throws unless `value` is a text that UTF-8 can have. @param what begins the error's sentence, such as `a topic` */
export function checkText(what: string, value: unknown): void {
  if (!isText(value)) throw new TypeError(`${what} is a text of whole Unicode characters`);
}
