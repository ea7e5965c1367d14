import type { Position } from '../../wire/cursor.js';
import type { Run } from '../../wire/event-batch.js';
import { framedId, framedIds } from '../framed-ids.js';
import { type DedupHorizon, isRemembered } from '../recent-ids.js';
import { RunList } from '../run-list.js';
import type { StoredRun } from '../stored-run.js';

/** A removed run: `bytes` are the ids of its events, framed. */
interface RemovedRun extends Run {
  readonly topic: string;
  readonly storedAt: number;
}

/** The ids of events that are removed and that deduplication still remembers. */
export class MemoryRemovedIds {
  private readonly lists = new Map<string, RunList<RemovedRun>>();
  /** All of them, in the order in which they were removed: nothing is searched for here. */
  private readonly all = new RunList<RemovedRun>();

  put({ topic, first, last, count, storedAt, bytes }: StoredRun): void {
    const ids = Buffer.from(framedIds(bytes));
    const run = { topic, first, last, count, storedAt, bytes: ids };
    const list = this.lists.get(topic) ?? new RunList();
    this.lists.set(topic, list);
    list.push(run);
    this.all.push(run);
  }

  /** Forgets what is before the horizon. A run that was removed behind a newer one stays as long as that. */
  forget(horizon: DedupHorizon): void {
    for (let run = this.all.oldest; run && !isRemembered(run, horizon); run = this.all.oldest) {
      this.all.removeOldest();
      const list = this.lists.get(run.topic)!;
      list.removeOldest();
      if (!list.oldest) this.lists.delete(run.topic);
    }
  }

  /** Returns the id of a removed event, or undefined if it is not kept. */
  at(topic: string, position: Position): Buffer | undefined {
    const run = this.lists.get(topic)?.newestUpTo(position);
    return run && position <= run.last ? framedId(run.bytes, position - run.first) : undefined;
  }
}
