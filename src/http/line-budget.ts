import { limitExceeded } from '../feed/call-limits.js';
import type { LimitHits } from '../feed/limit-hits.js';

/** An upload whose body has a line that is not whole. */
interface Holder {
  /** How much memory that line takes. */
  readonly heldBytes: number;
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

  /** Notes that the unfinished line of an upload takes so many bytes more, or fewer. */
  changed(holder: Holder, by: number): void {
    this.total += by;
    if (holder.heldBytes > 0) this.holders.add(holder);
    else this.holders.delete(holder);
    if (this.total <= this.most) return;
    let largest = holder;
    for (const one of this.holders) if (one.heldBytes > largest.heldBytes) largest = one;
    this.hits.add(LIMIT);
    largest.abort(
      limitExceeded(LIMIT, this.most, 'the unfinished lines of all bodies take too much'),
    );
  }
}
