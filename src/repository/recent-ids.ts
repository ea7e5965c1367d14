import { randomInt } from 'node:crypto';
import type { Position } from '../wire/cursor.js';
import type { DedupWindow } from './event-repository.js';

/** Nothing is remembered. */
export const NO_DEDUP: DedupWindow = { ids: 0, milliseconds: 0 };

/** The id of an event is remembered only if the event has this or a later position, and this or a later time. */
export interface DedupHorizon {
  /** Infinity if nothing is remembered. */
  readonly position: Position;
  readonly storedAt: number;
}

/** Returns true if the id of some event of a run is still remembered. */
export function isRemembered(
  { last, storedAt }: { readonly last: Position; readonly storedAt: number },
  horizon: DedupHorizon,
): boolean {
  return last >= horizon.position && storedAt >= horizon.storedAt;
}

/** The id hashes of events at consecutive positions, the first at `first`. `ids` is as in Commit. */
export interface CommitIds {
  readonly first: Position;
  readonly storedAt: number;
  readonly ids: Uint32Array;
}

const FIRST_CAPACITY = 16 * 1024;

// An entry has 6 words of 32 bits, all in one array: with a million ids, each look into another array would miss the
// processor's caches (docs/performance.md, "Id hashes"). A link is a slot plus 1, or 0 if there is none.
const HIGH = 0;
const LOW = 1;
/** The low 32 bits of the position, and of the time. */
const POSITION = 2;
const TIME = 3;
/** The upper 16 bits of the position, then those of the time. */
const UPPER = 4;
/** The link to the next older entry of the bucket. */
const OLDER = 5;
const WORDS = 6;
/** An overwritten entry is kept with the link that its bucket had then. */
const UNDO_WORDS = WORDS + 1;

/**
 * find() asks about at most this many ids that have the same hash. There are not two such ids by chance, but whoever wants to can make
 * thousands, and each question reads the log.
 */
const MOST_ASKED = 8;

/** The links that prefetch() reads first. One array serves every call, because prefetch() never waits. */
let links = new Uint32Array(1024);

const WORD = 2 ** 32;
const HALF = 2 ** 16;

/**
 * The ids of the newest events, as 64-bit hashes with the positions of the events: 28 bytes for each id. A hash only
 * points to an event that may have the id; the caller of find() compares the ids themselves.
 *
 * The entries are a ring: entry n is in slot n % capacity. Entries whose hashes fall into the same bucket form a chain,
 * from the newest to the oldest. When the ring overwrites a slot, the chain of the old entry still links to it. So
 * find() stops at an entry that is not older than the one before, because it belongs to another chain.
 *
 * Nobody outside knows which hashes share a bucket: whoever could make ids for one bucket would make each look into it slow.
 */
export class RecentIds {
  private capacity: number;
  /** The number of entries ever added. */
  private added = 0;
  /** The slot of the next entry. */
  private next = 0;
  /** The entries ever added up to this number are overwritten or too old. */
  private expired = 0;
  private entries: Uint32Array;
  /** For each bucket, the link to its newest entry. */
  private newest: Uint32Array;
  /** The factors of bucketOf(). They are odd, so that no bit of a hash is lost. */
  private readonly secretHigh = randomOdd();
  private readonly secretLow = randomOdd();
  /** `added` and `expired` at the time of mark(). */
  private marked = { added: 0, expired: 0 };
  /** The entries that were overwritten since mark(), and how many they are. */
  private overwritten = new Uint32Array(UNDO_WORDS * 1024);
  private overwrites = 0;
  /** prefetch() writes here, because V8 would leave out its reads if nobody used what they return. */
  protected prefetched = 0;

  constructor(private readonly window: DedupWindow) {
    this.capacity = Math.min(FIRST_CAPACITY, window.ids);
    this.entries = new Uint32Array(WORDS * this.capacity);
    this.newest = buckets(this.capacity);
  }

  /**
   * Adds the ids that were stored before this start. Call it before any other method.
   *
   * @param newestFirst is read only as far as the window goes back
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

  /** Returns the window from which no id is missing now: a shorter one than asked for, while more ids came within it than are remembered. */
  current(now: number): DedupWindow {
    const { ids, milliseconds } = this.window;
    if (this.added < ids || ids === 0) return this.window;
    const oldest = now - this.timeIn(this.next);
    // 0 would say that deduplication is off.
    return { ids, milliseconds: Math.max(1, Math.min(oldest, milliseconds)) };
  }

  /** Returns the horizon of the window that ends now. */
  horizon(now: number): DedupHorizon {
    return { position: this.oldest(now), storedAt: now - this.window.milliseconds };
  }

  /** Returns the position of the oldest entry within the window, or Infinity if there is none. */
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
    const bucket = this.bucketOf(high, low);
    const older = newest[bucket];
    if (this.added >= this.capacity) this.keepOverwritten(at, older);
    entries[at + HIGH] = high;
    entries[at + LOW] = low;
    entries[at + POSITION] = position; // an element of the array keeps the low 32 bits
    entries[at + TIME] = storedAt;
    entries[at + UPPER] = Math.floor(position / WORD) * HALF + Math.floor(storedAt / WORD);
    entries[at + OLDER] = older === slot + 1 ? 0 : older;
    newest[bucket] = slot + 1;
    this.added++;
    this.next = slot + 1 === this.capacity ? 0 : slot + 1;
  }

  /** Makes room for `count` entries at once, before the first one: grow() would take as long as adding them. */
  private reserve(count: number): void {
    while (this.capacity < Math.min(count, this.window.ids))
      this.capacity = Math.min(2 * this.capacity, this.window.ids);
    this.entries = new Uint32Array(WORDS * this.capacity);
    this.newest = buckets(this.capacity);
  }

  /** Marks the state that rollBack() restores. */
  mark(): void {
    this.marked = { added: this.added, expired: this.expired };
    this.overwrites = 0;
  }

  /** Removes what was added since mark(), and brings back the entries that it overwrote. */
  rollBack(): void {
    while (this.added > this.marked.added) {
      this.added--;
      this.next = (this.next === 0 ? this.capacity : this.next) - 1;
      const { entries, newest, next: slot } = this;
      const at = WORDS * slot;
      const bucket = this.bucketOf(entries[at + HIGH], entries[at + LOW]);
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
   * Reads what find() will read first for each of these hashes. These reads do not depend on each other, so the processor
   * waits for all of them at once (docs/performance.md, "Id hashes"). It changes no answer.
   *
   * @param hashes the high and the low half of each
   */
  prefetch(hashes: Uint32Array): void {
    const { entries, newest } = this;
    if (links.length < hashes.length / 2) links = new Uint32Array(hashes.length);
    for (let i = 0; i < hashes.length; i += 2)
      links[i >>> 1] = newest[this.bucketOf(hashes[i], hashes[i + 1])];
    let read = 0;
    for (let i = 0; i < hashes.length / 2; i++) {
      const link = links[i];
      if (link > 0) read ^= entries[WORDS * (link - 1) + LOW];
    }
    this.prefetched = read;
  }

  /**
   * Returns the position of the newest event within the window that has this hash and for which `isSame` returns true;
   * undefined if none of the newest MOST_ASKED with this hash is.
   */
  find(
    high: number,
    low: number,
    now: number,
    isSame: (position: Position) => boolean,
  ): Position | undefined {
    if (this.added === 0) return undefined;
    const { entries } = this;
    let age = -1;
    let asked = 0;
    for (let link = this.newest[this.bucketOf(high, low)]; link > 0;) {
      const slot = link - 1;
      const at = WORDS * slot;
      const older = this.ageOf(slot);
      if (older <= age || this.timeIn(slot) < now - this.window.milliseconds) return undefined;
      age = older;
      if (entries[at + LOW] === low && entries[at + HIGH] === high) {
        const position = this.positionIn(slot);
        if (isSame(position)) return position;
        if (++asked === MOST_ASKED) return undefined;
      }
      link = entries[at + OLDER];
    }
    return undefined;
  }

  /** Returns the bucket of a hash. */
  private bucketOf(high: number, low: number): number {
    let mixed = Math.imul(high, this.secretHigh) + Math.imul(low, this.secretLow);
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x7feb352d);
    return (mixed ^ (mixed >>> 15)) & (this.newest.length - 1);
  }

  /** Returns how many entries were added after the one in a slot. */
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

  /** Keeps for rollBack() the entry at index `at` of `entries`, and the link of the bucket that gets the new entry. */
  private keepOverwritten(at: number, link: number): void {
    const kept = UNDO_WORDS * this.overwrites++;
    if (kept === this.overwritten.length) {
      const wider = new Uint32Array(2 * kept);
      wider.set(this.overwritten);
      this.overwritten = wider;
    }
    for (let i = 0; i < WORDS; i++) this.overwritten[kept + i] = this.entries[at + i];
    this.overwritten[kept + WORDS] = link;
  }

  /** Doubles the ring. Call only before it overwrites its first slot, so that every entry keeps its slot. */
  private grow(): void {
    const { entries: before } = this;
    this.next = this.capacity;
    this.capacity = Math.min(2 * this.capacity, this.window.ids);
    this.entries = new Uint32Array(WORDS * this.capacity);
    this.entries.set(before);
    this.newest = buckets(this.capacity);
    for (let slot = 0; slot < this.added; slot++) {
      const at = WORDS * slot;
      const bucket = this.bucketOf(this.entries[at + HIGH], this.entries[at + LOW]);
      this.entries[at + OLDER] = this.newest[bucket];
      this.newest[bucket] = slot + 1;
    }
  }
}

/** Returns how many events came with an id. */
export function idCount(ids: Uint32Array): number {
  let count = 0;
  for (let i = 0; i < ids.length; i += 2) if (ids[i] !== 0 || ids[i + 1] !== 0) count++;
  return count;
}

/** Returns any odd number of 32 bits. */
function randomOdd(): number {
  return (randomInt(2 ** 31) * 2 + 1) | 0;
}

/** Returns empty buckets, one for each entry, rounded up to a power of two. */
function buckets(entries: number): Uint32Array {
  return new Uint32Array(2 ** Math.ceil(Math.log2(entries)));
}
