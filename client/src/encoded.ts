/** The name of an event's bytes, as a server sent them. An upload passes these on as they are, with what it can't decode. */
export const ENCODED: unique symbol = Symbol('encoded');
