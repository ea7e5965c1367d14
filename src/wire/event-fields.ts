// The numbers of an event's fields in the contract. CURSOR_FIELD (cursor.ts) and ATTRIBUTES_FIELD (attributes.ts) are the others.
export const ID = 1;
export const TOPIC = 2;
export const BODY = 3;
export const AT = 4;
