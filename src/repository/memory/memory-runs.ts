import type { Position } from '../../wire/cursor.js';
import type { EventBatch, Run } from '../../wire/event-batch.js';
import type { RunIndex } from '../engine.js';
import { RunList } from '../run-list.js';
import { type HeldRun, heldRun, type StoredRun } from '../stored-run.js';

type MemoryRun = StoredRun & HeldRun;

/** Runs in memory, a list for each topic that holds something. */
export class MemoryRuns implements RunIndex {
  private readonly lists = new Map<string, RunList<MemoryRun>>();
  /** The topics of `lists` in order, once somebody has asked for them. */
  private sorted: readonly string[] | undefined;

  get topicCount(): number {
    return this.lists.size;
  }

  add(run: StoredRun): void {
    let list = this.lists.get(run.topic);
    if (!list) {
      this.lists.set(run.topic, (list = new RunList()));
      this.sorted = undefined;
    }
    list.push({ ...run, ...heldRun(run, list.newest) });
  }

  removeOldest(topic: string): StoredRun {
    const list = this.lists.get(topic)!;
    const run = list.oldest!;
    list.removeOldest();
    if (!list.oldest) {
      this.lists.delete(topic);
      this.sorted = undefined;
    }
    return run;
  }

  read(topic: string, after: Position, upTo: Position, maxBytes: number): EventBatch | undefined {
    return this.lists.get(topic)?.read(after, upTo, maxBytes);
  }

  at(topic: string, first: Position): Run | undefined {
    const run = this.lists.get(topic)?.newestUpTo(first);
    return run?.first === first ? run : undefined;
  }

  oldest(topic: string, from: Position): HeldRun | undefined {
    return this.lists.get(topic)?.oldestFrom(from);
  }

  newest(topic: string, upTo: Position): HeldRun | undefined {
    return this.lists.get(topic)?.newestUpTo(upTo);
  }

  upTo(topic: string, position: Position): Iterable<HeldRun> {
    return this.lists.get(topic)?.upTo(position) ?? [];
  }

  /** The first look after a topic is new or has become empty sorts all topics. */
  *topics(after: string | undefined, prefix = ''): Iterable<string> {
    const sorted = (this.sorted ??= [...this.lists.keys()].toSorted());
    const from = after !== undefined && after > prefix ? after : prefix;
    for (let i = firstAtLeast(sorted, from); i < sorted.length; i++) {
      if (!sorted[i].startsWith(prefix)) return;
      if (sorted[i] !== after) yield sorted[i];
    }
  }
}

/** Returns the index of the first text that is not before another one, in a sorted list. */
function firstAtLeast(sorted: readonly string[], text: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle] < text) low = middle + 1;
    else high = middle;
  }
  return low;
}
