import type { Database } from 'lmdb';
import type { Position } from '../../wire/cursor.js';
import { framedId, framedIds } from '../deduplication.js';
import type { RecentIds } from '../recent-ids.js';
import { positionKey, readPositionKey, type RunKey } from './run-key.js';

/**
 * The ids of events that retention removes while they are remembered: without them, such an event sent again
 * would be stored again, because its hash alone says nothing.
 */
export class RemovedIds {
  constructor(
    /** By the first position, last position and time of each run: its topic and the ids of its events. */
    private readonly db: Database<Buffer, Buffer>,
    private readonly recent: RecentIds,
  ) {}

  /** Keeps the ids of a run that is removed, if need be. To be called within the batch that removes it. */
  keep(topic: string, run: RunKey, now: number, events: () => Buffer): void {
    if (!this.recent.isRemembered(run.last, run.storedAt, now)) return;
    const name = Buffer.from(topic); // of 200 bytes at most
    const value = Buffer.concat([Buffer.from([name.length]), name, framedIds(events())]);
    void this.db.put(keyOf(run), value);
  }

  /** Drops a few that are remembered no more. To be called within a batch, once: it sees what is committed. */
  forget(now: number, atMost: number): void {
    for (const key of this.db.getKeys({ limit: atMost })) {
      const { last, storedAt } = readKey(key);
      if (this.recent.isRemembered(last, storedAt, now)) return;
      void this.db.remove(key);
    }
  }

  at(topic: string, position: Position): Buffer | undefined {
    // The keys of earlier runs are before it, and those of later ones are not.
    const range = { start: positionKey(position + 1), reverse: true, limit: 1 };
    for (const { key, value } of this.db.getRange(range)) {
      const { first, last } = readKey(key);
      const ids = 1 + value[0];
      if (last < position || value.toString('utf8', 1, ids) !== topic) return undefined;
      return framedId(value.subarray(ids), position - first);
    }
    return undefined;
  }
}

function keyOf({ first, last, storedAt }: RunKey): Buffer {
  return Buffer.concat([first, last, storedAt].map(positionKey));
}

function readKey(key: Buffer): Pick<RunKey, 'first' | 'last' | 'storedAt'> {
  const [first, last, storedAt] = [0, 6, 12].map((at) => readPositionKey(key.subarray(at)));
  return { first, last, storedAt };
}
