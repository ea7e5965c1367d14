/** The parts of long searches that wait for their turn, in order. */
const waiting: (() => void)[] = [];

/**
 * Calls back in a turn of the event loop that comes soon, and calls back nobody else in that turn. Long searches of the log are done a
 * part at a time, each of some milliseconds, so that other work has its turn. Thousands of them may be under way: if each went on in every
 * turn, a turn would take seconds.
 */
export function inTurn(part: () => void): void {
  if (waiting.push(part) === 1) setImmediate(next);
}

/** Resolves when inTurn() would call back. */
export const nextTurn = (): Promise<void> => new Promise(inTurn);

function next(): void {
  // It runs in the next turn, also if this part waits for another one at once.
  if (waiting.length > 1) setImmediate(next);
  waiting.shift()!();
}
