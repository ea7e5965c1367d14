/** A cursor ends with the six characters of its epoch: `0000000002fc406w` is position `0000000002` of epoch `fc406w`. */
const EPOCH_CHARS = 6;

/**
 * Compares the position of a cursor that the server took as a start with that of its head. The epochs may differ: positions
 * of one log compare as text all the same (docs/protocol.md, "Names").
 */
export function isAtOrAfter(cursor: string, head: string): boolean {
  return cursor.slice(0, -EPOCH_CHARS) >= head.slice(0, -EPOCH_CHARS);
}
