import { limitExceeded } from '../feed/call-limits.js';
import type { LimitHits } from '../feed/limit-hits.js';

/** An upload whose body has a line that is not whole. */
interface Holder {
  readonly unfinishedBytes: number;
  abort(reason: Error): void;
}

const LIMIT = 'FEED_RECEIVE_BYTES';

/** Bounds what the unfinished lines of all bodies take together. Beyond it, the upload that holds most is ended. */
export class LineBudget {
  private readonly holders = new Set<Holder>();
  private total = 0;

  constructor(
    private readonly most: number,
    private readonly hits: LimitHits,
  ) {}

  /** Notes that the unfinished line of an upload has grown, or has become shorter, by so many bytes. */
  changed(holder: Holder, by: number): void {
    this.total += by;
    if (holder.unfinishedBytes > 0) this.holders.add(holder);
    else this.holders.delete(holder);
    if (this.total <= this.most) return;
    let largest = holder;
    for (const one of this.holders)
      if (one.unfinishedBytes > largest.unfinishedBytes) largest = one;
    this.hits.add(LIMIT);
    largest.abort(
      limitExceeded(LIMIT, this.most, 'the unfinished lines of all bodies take too much'),
    );
  }
}
