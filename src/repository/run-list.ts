import type { Position } from '../wire/cursor.js';
import { cutAfter, type EventBatch, joined, type Run } from '../wire/event-batch.js';

/** A queue of runs, of one topic or of all, in the order of their positions. */
export class RunList<R extends Run> {
  /** Removed runs leave empty places at the beginning, until there are many of them. */
  private runs: R[] = [];
  /** The index of the oldest run. */
  private start = 0;

  get oldest(): R | undefined {
    return this.runs[this.start];
  }

  get newest(): R | undefined {
    return this.runs.at(-1);
  }

  push(run: R): void {
    this.runs.push(run);
  }

  removeOldest(): void {
    // Not until the places are removed: each topic has a list, and could hold 64 removed runs for as long as it has another one.
    this.runs[this.start++] = undefined as never;
    if (this.start === this.runs.length) {
      this.runs = [];
      this.start = 0;
    } else if (this.start > 64 && this.start > this.runs.length / 2) {
      this.runs = this.runs.slice(this.start);
      this.start = 0;
    }
  }

  /** Yields the runs that start up to a position, the oldest first. */
  *upTo(position: Position): Iterable<R> {
    for (let i = this.start; i < this.runs.length && this.runs[i].first <= position; i++)
      yield this.runs[i];
  }

  /** Returns the oldest run that starts at or after a position. */
  oldestFrom(position: Position): R | undefined {
    const i = this.indexAfter(position - 1);
    return this.runs[i]?.first < position ? this.runs[i + 1] : this.runs[i];
  }

  /** Returns the newest run that starts at or before a position. */
  newestUpTo(position: Position): R | undefined {
    const i = this.indexAfter(position);
    if (this.runs[i]?.first <= position) return this.runs[i];
    return i > this.start ? this.runs[i - 1] : undefined;
  }

  /** Returns the events after a position and up to another: the first run and further ones up to `maxBytes`. */
  read(after: Position, upTo: Position, maxBytes: number): EventBatch | undefined {
    let i = this.indexAfter(after);
    const first = this.runs[i];
    if (!first || first.last > upTo) return undefined;
    const parts: EventBatch[] = [first.first > after ? first : cutAfter(first, after)];
    let bytes = parts[0].bytes.length;
    for (let run = this.runs[++i]; run && run.last <= upTo; run = this.runs[++i]) {
      bytes += run.bytes.length;
      if (bytes > maxBytes) break;
      parts.push(run);
    }
    return joined(parts);
  }

  /** Returns the index of the first run that ends after a position. */
  private indexAfter(position: Position): number {
    let low = this.start;
    let high = this.runs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.runs[middle].last > position) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
