import type { Position } from '../wire/cursor.js';

/** What is remembered: so many ids, for so long (milliseconds of the log's own time). */
export interface DedupWindow {
  readonly ids: number;
  readonly milliseconds: number;
}

/** Nothing is remembered. */
export const NO_DEDUP: DedupWindow = { ids: 0, milliseconds: 0 };

/** Nobody asks any more for the id of an event before this position, or stored before this time. */
export interface DedupHorizon {
  /** Infinity if nothing is remembered. */
  readonly position: Position;
  readonly storedAt: number;
}

/** Returns false if no event of a run is asked about any more. */
export function isRemembered(
  { last, storedAt }: { readonly last: Position; readonly storedAt: number },
  horizon: DedupHorizon,
): boolean {
  return last >= horizon.position && storedAt >= horizon.storedAt;
}

/** The id hashes of events at consecutive positions, in two halves each; 0 and 0 where the server made the id. */
export interface CommitIds {
  readonly first: Position;
  readonly storedAt: number;
  readonly ids: Uint32Array;
}

const FIRST_CAPACITY = 16 * 1024;

// An entry, in 32-bit words. All of it is in one place, because with a million ids each look into another array misses
// the processor's caches (docs/performance.md, "Id hashes").
const HIGH = 0;
const LOW = 1;
const POSITION = 2;
const TIME = 3;
/** What the position and the time have beyond 32 bits: the position's in the upper half. */
const UPPER = 4;
/** The slot of the entry before it in its chain, plus 1; 0 at the end. */
const OLDER = 5;
const WORDS = 6;
/** Of what was overwritten: its entry, and the slot of its bucket's newest entry, plus 1. */
const UNDO_WORDS = WORDS + 1;

/** What prefetch() reads of the buckets; one array serves all, because it never waits. */
let links = new Uint32Array(1024);

const WORD = 2 ** 32;
const HALF = 2 ** 16;

/**
 * The ids of the newest events, as 64-bit hashes with the positions of the events: 28 bytes an id. A hash only points at
 * an event that may have the id; the caller of find() compares the ids themselves.
 *
 * The entries are a ring in the order of positions, and each bucket has a chain from its newest entry to older ones. An
 * entry that the ring overwrites stays in its chain: the chain ends where the next entry is not older.
 */
export class RecentIds {
  private capacity: number;
  /** Entries ever added; entry n is in slot n % capacity. */
  private added = 0;
  private next = 0;
  /** How many of the entries ever added are known to be too old. */
  private expired = 0;
  private entries: Uint32Array;
  /** For each bucket the slot of its newest entry, plus 1; 0 if it has none. */
  private newest: Uint32Array;
  /** `added` and `expired` as they were at mark(); `overwritten` has the entries that were overwritten since. */
  private marked = { added: 0, expired: 0 };
  private overwritten = new Uint32Array(UNDO_WORDS * 1024);
  private overwrites = 0;
  /** What prefetch() read: V8 would leave out loads of which nothing comes. */
  protected prefetched = 0;

  constructor(private readonly window: DedupWindow) {
    this.capacity = Math.min(FIRST_CAPACITY, window.ids);
    this.entries = new Uint32Array(WORDS * this.capacity);
    this.newest = buckets(this.capacity);
  }

  /**
   * Adds what was stored before a start. Nothing was added yet.
   *
   * @param newestFirst is read no further than the window goes
   */
  recall(newestFirst: Iterable<CommitIds>, now: number): void {
    const recalled: CommitIds[] = [];
    let count = 0;
    for (const part of newestFirst) {
      if (count >= this.window.ids || part.storedAt < now - this.window.milliseconds) break;
      recalled.push(part);
      count += idCount(part.ids);
    }
    this.reserve(count);
    for (const { first, storedAt, ids } of recalled.toReversed()) {
      for (let i = 0; i < ids.length; i += 2) {
        if (ids[i] !== 0 || ids[i + 1] !== 0) this.add(ids[i], ids[i + 1], first + i / 2, storedAt);
      }
    }
  }

  horizon(now: number): DedupHorizon {
    return { position: this.oldest(now), storedAt: now - this.window.milliseconds };
  }

  /** The position of the oldest entry within the window; Infinity where there is none. */
  oldest(now: number): Position {
    this.expired = Math.max(this.expired, this.added - this.capacity);
    while (
      this.expired < this.added &&
      this.timeIn(this.expired % this.capacity) < now - this.window.milliseconds
    )
      this.expired++;
    return this.expired < this.added ? this.positionIn(this.expired % this.capacity) : Infinity;
  }

  add(high: number, low: number, position: Position, storedAt: number): void {
    if (this.window.ids === 0) return;
    if (this.added === this.capacity && this.capacity < this.window.ids) this.grow();
    const { entries, newest, next: slot } = this;
    const at = WORDS * slot;
    const bucket = low & (newest.length - 1);
    const older = newest[bucket];
    if (this.added >= this.capacity) this.keepOverwritten(at, older);
    entries[at + HIGH] = high;
    entries[at + LOW] = low;
    entries[at + POSITION] = position; // modulo 2^32, as is the time
    entries[at + TIME] = storedAt;
    entries[at + UPPER] = Math.floor(position / WORD) * HALF + Math.floor(storedAt / WORD);
    entries[at + OLDER] = older === slot + 1 ? 0 : older;
    newest[bucket] = slot + 1;
    this.added++;
    this.next = slot + 1 === this.capacity ? 0 : slot + 1;
  }

  /** Makes room for so many entries while there are none: growing to it takes as long as filling it. */
  private reserve(count: number): void {
    while (this.capacity < Math.min(count, this.window.ids))
      this.capacity = Math.min(2 * this.capacity, this.window.ids);
    this.entries = new Uint32Array(WORDS * this.capacity);
    this.newest = buckets(this.capacity);
  }

  /** Begins what rollBack() takes back. */
  mark(): void {
    this.marked = { added: this.added, expired: this.expired };
    this.overwrites = 0;
  }

  /** Takes back what was added since mark(), and brings back what that pushed out. */
  rollBack(): void {
    while (this.added > this.marked.added) {
      this.added--;
      this.next = (this.next === 0 ? this.capacity : this.next) - 1;
      const { entries, newest, next: slot } = this;
      const at = WORDS * slot;
      const bucket = entries[at + LOW] & (newest.length - 1);
      if (this.overwrites === 0) {
        newest[bucket] = entries[at + OLDER];
      } else {
        const kept = UNDO_WORDS * --this.overwrites;
        entries.set(this.overwritten.subarray(kept, kept + WORDS), at);
        newest[bucket] = this.overwritten[kept + WORDS];
      }
    }
    this.expired = this.marked.expired;
  }

  /**
   * Reads what find() of each of these hashes will read first: independent loads, which the processor waits for together
   * and not one after another (docs/performance.md, "Id hashes"). It changes no answer.
   *
   * @param hashes high and low half of each, one after another
   */
  prefetch(hashes: Uint32Array): void {
    const { entries, newest } = this;
    const last = newest.length - 1;
    if (links.length < hashes.length / 2) links = new Uint32Array(hashes.length);
    for (let i = 1; i < hashes.length; i += 2) links[i >>> 1] = newest[hashes[i] & last];
    let read = 0;
    for (let i = 0; i < hashes.length / 2; i++) {
      const link = links[i];
      if (link > 0) read ^= entries[WORDS * (link - 1) + LOW];
    }
    this.prefetched = read;
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
    const { entries } = this;
    let age = -1;
    for (let link = this.newest[low & (this.newest.length - 1)]; link > 0;) {
      const slot = link - 1;
      const at = WORDS * slot;
      const older = this.ageOf(slot);
      if (older <= age || this.timeIn(slot) < now - this.window.milliseconds) return undefined;
      age = older;
      if (entries[at + LOW] === low && entries[at + HIGH] === high && is(this.positionIn(slot))) {
        return this.positionIn(slot);
      }
      link = entries[at + OLDER];
    }
    return undefined;
  }

  /** How many entries were added after the one in a slot. */
  private ageOf(slot: number): number {
    const age = this.next - 1 - slot;
    return age < 0 ? age + this.capacity : age;
  }

  private positionIn(slot: number): Position {
    const at = WORDS * slot;
    return (this.entries[at + UPPER] >>> 16) * WORD + this.entries[at + POSITION];
  }

  private timeIn(slot: number): number {
    const at = WORDS * slot;
    return (this.entries[at + UPPER] & (HALF - 1)) * WORD + this.entries[at + TIME];
  }

  private keepOverwritten(at: number, newest: number): void {
    const kept = UNDO_WORDS * this.overwrites++;
    if (kept === this.overwritten.length) {
      const wider = new Uint32Array(2 * kept);
      wider.set(this.overwritten);
      this.overwritten = wider;
    }
    for (let i = 0; i < WORDS; i++) this.overwritten[kept + i] = this.entries[at + i];
    this.overwritten[kept + WORDS] = newest;
  }

  /** Only while the ring has not wrapped, so that every entry keeps its slot. */
  private grow(): void {
    const { entries: before } = this;
    this.next = this.capacity;
    this.capacity = Math.min(2 * this.capacity, this.window.ids);
    this.entries = new Uint32Array(WORDS * this.capacity);
    this.entries.set(before);
    this.newest = buckets(this.capacity);
    for (let slot = 0; slot < this.added; slot++) {
      const bucket = this.entries[WORDS * slot + LOW] & (this.newest.length - 1);
      this.entries[WORDS * slot + OLDER] = this.newest[bucket];
      this.newest[bucket] = slot + 1;
    }
  }
}

/** How many events have an id of their own. */
function idCount(ids: Uint32Array): number {
  let count = 0;
  for (let i = 0; i < ids.length; i += 2) if (ids[i] !== 0 || ids[i + 1] !== 0) count++;
  return count;
}

/** As many as entries, or up to twice as many; a power of two. */
function buckets(entries: number): Uint32Array {
  return new Uint32Array(2 ** Math.ceil(Math.log2(entries)));
}
