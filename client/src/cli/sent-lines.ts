import type { Place } from './line-blocks.js';

/** The array is cut once so many of its places are no longer needed. */
const CUT_AT = 2 ** 14;

/** The ends of the lines that were handed to an upload and are not acknowledged, in order. */
export class SentLines {
  private places: Place[] = [];
  private first = 0;
  /** So many lines were acknowledged. */
  acknowledged = 0;

  push(end: Place): void {
    this.places.push(end);
  }

  /** Notes that the next `count` lines (at least one) are acknowledged. Returns the end of the last of them. */
  acknowledge(count: number): Place {
    this.first += count;
    this.acknowledged += count;
    const end = this.places[this.first - 1];
    if (this.first >= CUT_AT) {
      this.places = this.places.slice(this.first);
      this.first = 0;
    }
    return end;
  }

  /** Returns the end of a line by its index among all that were handed over, if it is not acknowledged. */
  at(index: number): Place | undefined {
    return this.places[this.first + index - this.acknowledged];
  }
}
