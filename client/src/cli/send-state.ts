/** How far an upload has come in a file or a log. */
export interface SendPoints<Place> {
  /** All events before this place are stored. */
  readonly acknowledged: Place;
  /** No event after this place was sent. The events from `acknowledged` to here are in doubt. */
  readonly read: Place;
  /** The events in doubt were sent at this time (Date.now()) or later. */
  readonly sentSince: number;
}

/**
 * How far an upload has come, saved before events are sent and after they are acknowledged. So after a kill it is known which events
 * are stored, and which are in doubt: they were sent, and may be stored or not.
 */
export class SendState<Place> {
  /**
   * The value of `sentSince` after the next acknowledgement (Date.now()): the time of the last acknowledgement, or of the first
   * sending. Events that the next acknowledgement leaves in doubt were not sent before that.
   */
  private nextSince: number;
  private saving: Promise<void> = Promise.resolve();
  private isSaveQueued = false;

  /**
   * @param isAfter compares two places
   * @param write saves the points: one call at a time
   */
  constructor(
    private points: SendPoints<Place>,
    private readonly isAfter: (one: Place, other: Place) => boolean,
    private readonly write: (points: SendPoints<Place>) => Promise<void>,
  ) {
    this.nextSince = points.sentSince;
  }

  get acknowledged(): Place {
    return this.points.acknowledged;
  }

  /** The end of the events in doubt, and since when they are; undefined if there are none. */
  get doubt(): { readonly end: Place; readonly since: Date } | undefined {
    const { acknowledged, read, sentSince } = this.points;
    return this.isAfter(read, acknowledged) ? { end: read, since: new Date(sentSince) } : undefined;
  }

  /** Notes that events up to `place` are about to be sent. Resolves when that is saved. */
  async beforeSending(place: Place): Promise<void> {
    if (!this.isAfter(place, this.points.read)) return; // They are in doubt already.
    let { sentSince } = this.points;
    if (!this.doubt) {
      sentSince = Date.now();
      this.nextSince = sentSince;
    }
    this.points = { ...this.points, read: place, sentSince };
    await this.save();
  }

  /** Notes that all events before `place` are stored. That is saved soon. */
  acknowledge(place: Place): void {
    const read = this.isAfter(place, this.points.read) ? place : this.points.read;
    // Calls follow one another, so events that are not acknowledged now were sent after the acknowledgement before this one. For
    // those of a call that broke, see broke().
    this.points = { acknowledged: place, read, sentSince: this.nextSince };
    this.nextSince = Date.now();
    this.save().catch(() => {}); // The next save, or finish(), throws it as well.
  }

  /** Notes that a call broke: the events that it sent stay in doubt, since the time when it sent them. */
  broke(): void {
    this.nextSince = this.points.sentSince;
  }

  /** Notes that no event after `place` was sent: fewer events are in doubt than were read. */
  async narrowDoubt(place: Place): Promise<void> {
    this.points = { ...this.points, read: place };
    await this.save();
  }

  /** Decides about the events in doubt: `again` takes them for not stored, so that they are sent again; `skip` for stored. */
  async settleDoubt(how: 'again' | 'skip'): Promise<void> {
    const { acknowledged, read } = this.points;
    const place = how === 'skip' ? read : acknowledged;
    this.points = { ...this.points, acknowledged: place, read: place };
    await this.save();
  }

  /** Resolves when the state is saved. @throws what `write` fails with */
  async finish(): Promise<void> {
    await this.save();
  }

  /** Saves the state after the save under way. Several calls meanwhile make one save. */
  private save(): Promise<void> {
    if (this.isSaveQueued) return this.saving;
    this.isSaveQueued = true;
    this.saving = this.saving
      .catch(() => {})
      .then(() => {
        this.isSaveQueued = false;
        return this.write(this.points);
      });
    return this.saving;
  }
}
