import type { Position } from '../wire/cursor.js';

/** What is remembered: so many ids, for so long (milliseconds of the log's own time). */
export interface DedupWindow {
  readonly ids: number;
  readonly milliseconds: number;
}

/** Nothing is remembered. */
export const NO_DEDUP: DedupWindow = { ids: 0, milliseconds: 0 };

const FIRST_CAPACITY = 16 * 1024;

/**
 * The ids of the newest events, as 64-bit hashes with the positions where the events are: 25 bytes an id. A
 * hash only points at an event that may have the id; who asks must look at it.
 *
 * A ring in the order of positions, and for each bucket a chain from its newest entry to older ones. What the
 * ring overwrites is not taken out of its chain: a chain ends where the next entry is not older.
 */
export class RecentIds {
  private capacity: number;
  /** Entries ever added; entry n is in slot n % capacity. */
  private added = 0;
  private high: Uint32Array;
  private low: Uint32Array;
  private positions: Float64Array;
  private times: Float64Array;
  private older: Int32Array;
  private newest: Int32Array;

  constructor(private readonly window: DedupWindow) {
    this.capacity = Math.min(FIRST_CAPACITY, window.ids);
    this.high = new Uint32Array(this.capacity);
    this.low = new Uint32Array(this.capacity);
    this.positions = new Float64Array(this.capacity);
    this.times = new Float64Array(this.capacity);
    this.older = new Int32Array(this.capacity);
    this.newest = buckets(this.capacity);
  }

  /** Whether events up to a position, stored at a time, may still be asked about. */
  isRemembered(last: Position, storedAt: number, now: number): boolean {
    return last >= this.oldest && storedAt >= now - this.window.milliseconds;
  }

  /** The position of the oldest entry; Infinity where there is none. */
  get oldest(): Position {
    if (this.added === 0) return Infinity;
    return this.positions[this.added > this.capacity ? this.added % this.capacity : 0];
  }

  add(high: number, low: number, position: Position, storedAt: number): void {
    if (this.window.ids === 0) return;
    if (this.added === this.capacity && this.capacity < this.window.ids) this.grow();
    const slot = this.added++ % this.capacity;
    const bucket = low & (this.newest.length - 1);
    const older = this.newest[bucket];
    this.high[slot] = high;
    this.low[slot] = low;
    this.positions[slot] = position;
    this.times[slot] = storedAt;
    this.older[slot] = older === slot ? -1 : older;
    this.newest[bucket] = slot;
  }

  /**
   * The first position, from the newest on, of an event with this hash for which `is` says that it is the one.
   * Events stored before the window are not asked about.
   */
  find(
    high: number,
    low: number,
    now: number,
    is: (position: Position) => boolean,
  ): Position | undefined {
    if (this.added === 0) return undefined;
    let slot = this.newest[low & (this.newest.length - 1)];
    let entry = this.added;
    while (slot >= 0) {
      const at = this.entryIn(slot);
      if (at >= entry || this.times[slot] < now - this.window.milliseconds) return undefined;
      entry = at;
      if (this.low[slot] === low && this.high[slot] === high && is(this.positions[slot])) {
        return this.positions[slot];
      }
      slot = this.older[slot];
    }
    return undefined;
  }

  /** The newest entry that is, or was, in a slot. */
  private entryIn(slot: number): number {
    const last = this.added - 1;
    const lastSlot = last % this.capacity;
    return slot <= lastSlot ? last - (lastSlot - slot) : last - (lastSlot + this.capacity - slot);
  }

  /** Only while the ring has not wrapped, so that every entry keeps its slot. */
  private grow(): void {
    this.capacity = Math.min(2 * this.capacity, this.window.ids);
    this.high = widened(this.high, new Uint32Array(this.capacity));
    this.low = widened(this.low, new Uint32Array(this.capacity));
    this.positions = widened(this.positions, new Float64Array(this.capacity));
    this.times = widened(this.times, new Float64Array(this.capacity));
    this.older = widened(this.older, new Int32Array(this.capacity));
    this.newest = buckets(this.capacity);
    for (let slot = 0; slot < this.added; slot++) {
      const bucket = this.low[slot] & (this.newest.length - 1);
      this.older[slot] = this.newest[bucket];
      this.newest[bucket] = slot;
    }
  }
}

/** Twice as many as entries, or a little less; a power of two. */
function buckets(entries: number): Int32Array<ArrayBuffer> {
  return new Int32Array(2 ** Math.ceil(Math.log2(entries))).fill(-1);
}

function widened<T extends Uint32Array | Float64Array | Int32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
