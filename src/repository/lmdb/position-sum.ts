import type { Position } from '../../wire/cursor.js';

/** Positions are smaller, so that no sum of two is rounded. */
const MODULUS = 2 ** 48;

/**
 * The sum of the positions that the records of some tables name (Store.positions()), modulo 2^48. Each commit stores it, because nothing
 * else shows that a page of one of these tables is of another moment than the rest of a copy: run-check.ts compares the events only.
 */
export class PositionSum {
  constructor(private sum: number) {}

  get value(): number {
    return this.sum;
  }

  add(position: Position): void {
    this.sum = (this.sum + position) % MODULUS;
  }

  subtract(position: Position): void {
    this.sum = (this.sum - position + MODULUS) % MODULUS;
  }
}
