import type { Position } from '../../wire/cursor.js';
import type { CommitIndex, CommitRecord } from '../engine.js';

/** The records of commits in memory, in the order of their positions. */
export class MemoryCommits implements CommitIndex {
  private readonly records: CommitRecord[] = [];

  add(record: CommitRecord): void {
    this.records.push(record);
  }

  remove(first: Position): void {
    const i = this.indexAfter(first) - 1;
    if (this.records[i]?.first === first) this.records.splice(i, 1);
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
      const record = this.records[this.indexAfter(at) - 1];
      if (!record) return;
      yield record;
      at = record.first - 1;
    }
  }

  /** Returns the index of the first record that begins after a position. */
  private indexAfter(position: Position): number {
    let low = 0;
    let high = this.records.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.records[middle].first > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
