import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import { framedId, framedIds } from '../deduplication.js';
import type { RecentIds } from '../recent-ids.js';
import { positionKey, readPositionKey, type RunKey } from './run-key.js';

/** The ids of a removed run's events. */
export interface RemovedRun {
  readonly topic: string;
  readonly last: Position;
  readonly storedAt: number;
  readonly ids: Buffer;
}

/**
 * The ids of events that retention removes while they are remembered: without them, such an event sent again
 * would be stored again, because its hash alone says nothing.
 */
export class RemovedIds {
  constructor(
    /** By the first position of each run. */
    private readonly db: Database<RemovedRun, Buffer>,
    private readonly recent: RecentIds,
  ) {}

  /** Keeps the ids of a run that is removed, if need be. To be called within the batch that removes it. */
  keep(topic: string, { first, last, storedAt }: RunKey, now: number, events: () => Buffer): void {
    if (!this.recent.isRemembered(last, storedAt, now)) return;
    const ids = framedIds(events());
    void this.db.put(positionKey(first), { topic, last, storedAt, ids });
  }

  /** Drops a few that are remembered no more. To be called within a batch, once: it sees what is committed. */
  forget(now: number, atMost: number): void {
    for (const { key, value } of this.db.getRange({ limit: atMost })) {
      if (this.recent.isRemembered(value.last, value.storedAt, now)) return;
      void this.db.remove(key);
    }
  }

  at(topic: string, position: Position): Buffer | undefined {
    const range = { start: positionKey(position), reverse: true, limit: 1 };
    for (const { key, value } of this.db.getRange(range)) {
      if (value.topic !== topic || value.last < position) return undefined;
      return framedId(value.ids, position - readPositionKey(key));
    }
    return undefined;
  }
}
