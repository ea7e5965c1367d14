import type { Position } from '../../wire/cursor.js';

/** Positions are smaller. The largest weight times a position, and one sum more, are exact in a number. */
const MODULUS = 2 ** 48;

/**
 * A commit that removes a run takes its position from one table, and puts it into up to two others. With these weights, no two
 * tables of another moment make up for each other: no sum of some of them, each added or subtracted, is 0.
 */
const WEIGHTS = { ids: 1, order: 2, floors: 4, removedIds: 8 } as const;

/** A table whose records name positions. */
export type PositionTable = keyof typeof WEIGHTS;

/**
 * The sum of the positions that the records of some tables name (Store.positions()), each with the weight of its table, modulo 2^48. Each
 * commit stores it, because nothing else shows that a page of one of these tables is of another moment than the rest of a copy:
 * run-check.ts compares the events only.
 */
export class PositionSum {
  constructor(private sum: number) {}

  get value(): number {
    return this.sum;
  }

  add(table: PositionTable, position: Position): void {
    this.sum = (this.sum + WEIGHTS[table] * position) % MODULUS;
  }

  subtract(table: PositionTable, position: Position): void {
    this.sum = (this.sum + MODULUS - ((WEIGHTS[table] * position) % MODULUS)) % MODULUS;
  }
}
