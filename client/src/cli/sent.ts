/** The places of acknowledged events are dropped once there are this many, because dropping each by itself would be slow. */
const DROP_AT = 2 ** 14;

/** Where the events that were handed to an upload and are not acknowledged end, in order: in a file or a log. */
export class Sent<Place> {
  /** The places before index `first` are those of acknowledged events. */
  private places: Place[] = [];
  private first = 0;
  /** The number of events that were acknowledged. */
  acknowledged = 0;

  push(end: Place): void {
    this.places.push(end);
  }

  /** Notes that the next `count` events (at least one) are acknowledged. Returns the end of the last of them. */
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

  /** Returns the end of an event that is not acknowledged. `index` counts all events that were handed to the upload, from 0. */
  at(index: number): Place | undefined {
    return this.places[this.first + index - this.acknowledged];
  }
}
