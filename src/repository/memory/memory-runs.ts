import type { Position } from '../../wire/cursor.js';
import type { EventBatch } from '../../wire/event-batch.js';
import type { RunIndex } from '../engine.js';
import { RunList } from '../run-list.js';
import { type HeldRun, heldRun, type StoredRun } from '../stored-run.js';

type MemoryRun = StoredRun & HeldRun;

/** Runs in memory, a list for each topic that holds something. */
export class MemoryRuns implements RunIndex {
  private readonly lists = new Map<string, RunList<MemoryRun>>();

  get topicCount(): number {
    return this.lists.size;
  }

  add(run: StoredRun): void {
    let list = this.lists.get(run.topic);
    if (!list) this.lists.set(run.topic, (list = new RunList()));
    list.push({ ...run, ...heldRun(run, list.newest) });
  }

  removeOldest(topic: string): StoredRun {
    const list = this.lists.get(topic)!;
    const run = list.oldest!;
    list.removeOldest();
    if (!list.oldest) this.lists.delete(topic);
    return run;
  }

  read(topic: string, after: Position, upTo: Position, maxBytes: number): EventBatch | undefined {
    return this.lists.get(topic)?.read(after, upTo, maxBytes);
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

  *topics(after: string | undefined): Iterable<string> {
    let isAfter = after === undefined;
    for (const topic of this.lists.keys()) {
      if (isAfter) yield topic;
      isAfter ||= topic === after;
    }
  }
}
