import type { Place } from './line-blocks.js';

/** The places of acknowledged lines are dropped once there are this many, because dropping each by itself would be slow. */
const DROP_AT = 2 ** 14;

/** The ends of the lines that were handed to an upload and are not acknowledged, in order. */
export class SentLines {
  /** The places before index `first` are those of acknowledged lines. */
  private places: Place[] = [];
  private first = 0;
  /** The number of lines that were acknowledged. */
  acknowledged = 0;

  push(end: Place): void {
    this.places.push(end);
  }

  /** Notes that the next `count` lines (at least one) are acknowledged. Returns the end of the last of them. */
  acknowledge(count: number): Place {
    this.first += count;
    this.acknowledged += count;
    const end = this.places[this.first - 1];
    if (this.first >= DROP_AT) {
      this.places = this.places.slice(this.first);
      this.first = 0;
    }
    return end;
  }

  /** Returns the end of a line that is not acknowledged. `index` counts all lines that were handed to the upload, from 0. */
  at(index: number): Place | undefined {
    return this.places[this.first + index - this.acknowledged];
  }
}
