import type { Position } from '../../wire/cursor.js';
import type { CommitIndex, CommitRecord } from '../engine.js';

/** The records of commits in memory, in the order of their positions. */
export class MemoryCommits implements CommitIndex {
  private records: CommitRecord[] = [];
  /** The index of the oldest record. Records before it are removed. */
  private start = 0;

  add(record: CommitRecord): void {
    this.records.push(record);
  }

  remove(first: Position): void {
    const i = this.indexAfter(first) - 1;
    if (i < this.start) return;
    if (this.records[i]?.first !== first) return;
    if (i > this.start) this.records.splice(i, 1);
    else this.start++;
    if (this.start > 64 && this.start > this.records.length / 2) {
      this.records = this.records.slice(this.start);
      this.start = 0;
    }
  }

  /** A record may be added or removed while this is read: it yields those that are there when it comes to them. */
  *after(position: Position = 0): Iterable<CommitRecord> {
    for (let at = position; ;) {
      const record = this.records[this.indexAfter(at)];
      if (!record) return;
      yield record;
      at = record.first;
    }
  }

  *upTo(position: Position): Iterable<CommitRecord> {
    for (let at = position; ;) {
      const i = this.indexAfter(at) - 1;
      if (i < this.start) return;
      const record = this.records[i];
      yield record;
      at = record.first - 1;
    }
  }

  /** Returns the index of the first record that begins after a position. */
  private indexAfter(position: Position): number {
    let low = this.start;
    let high = this.records.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.records[middle].first > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
