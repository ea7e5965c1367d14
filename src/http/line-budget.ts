import { limitExceeded } from '../feed/call-limits.js';
import type { LimitHits } from '../feed/limit-hits.js';

/** An upload whose body has a line that is not whole. */
interface Holder {
  abort(reason: Error): void;
}

const LIMIT = 'FEED_RECEIVE_BYTES';

/** Bounds what the unfinished lines of all bodies take together. Beyond it, the upload that holds most is ended. */
export class LineBudget {
  /** How many bytes the unfinished line of each upload takes. */
  private readonly held = new Map<Holder, number>();
  /** Uploads that were ended: their lines are dropped soon, and not counted any more. */
  private readonly ended = new WeakSet<Holder>();
  private total = 0;

  /** @param most a quarter of FEED_RECEIVE_BYTES (mostUnfinishedLines() in src/config) */
  constructor(
    private readonly most: number,
    private readonly hits: LimitHits,
  ) {}

  /** Notes how much memory the unfinished line of an upload takes now. */
  note(holder: Holder, bytes: number): void {
    if (this.ended.has(holder)) return;
    this.total += bytes - (this.held.get(holder) ?? 0);
    if (bytes > 0) this.held.set(holder, bytes);
    else this.held.delete(holder);
    if (this.total > this.most) this.endLargest();
  }

  private endLargest(): void {
    const [largest, bytes] = [...this.held].reduce((a, b) => (b[1] > a[1] ? b : a));
    this.held.delete(largest);
    this.ended.add(largest);
    this.total -= bytes;
    this.hits.add(LIMIT);
    const why = 'the unfinished lines of all bodies take a quarter of FEED_RECEIVE_BYTES';
    largest.abort(limitExceeded(LIMIT, this.most, why));
  }
}
