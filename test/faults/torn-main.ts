import { createHash } from 'node:crypto';
import type { EventLog } from '../../src/repository/event-log.js';
import { openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import { KEEP_ALL } from '../../src/repository/retention.js';
import { readAll } from '../contract/reading.js';
import { answer } from '../support/child-main.js';
import { checked } from '../wire/events.js';

/** The contents of a log, as its readers see them. */
export interface Contents {
  readonly head: number;
  readonly floors: readonly number[];
  /** For each topic, a hash of all its events with their cursors and bodies. */
  readonly digests: readonly string[];
}

export type Methods = typeof methods;

/** A limit so small that every log must remove events when more come in. */
const KEEP_LITTLE = { ...KEEP_ALL, maxBytes: 40_000 };
const dedup = { ids: 1_000, milliseconds: 3_600_000 };

async function contentsOf(log: EventLog, topics: readonly string[]): Promise<Contents> {
  const floors: number[] = [];
  const digests: string[] = [];
  for (const topic of topics) {
    const floor = await log.floor(topic);
    floors.push(floor);
    const hash = createHash('sha256');
    for (const { id, cursor, body } of await readAll(log, topic, floor))
      hash.update(JSON.stringify([id, cursor, body]));
    digests.push(hash.digest('hex'));
  }
  return { head: log.head, floors, digests };
}

const methods = {
  /** Reads all of a log. */
  async read(directory: string, topics: readonly string[]): Promise<Contents> {
    const log = await openLmdbLog({ directory, fsync: false, dedup });
    const contents = await contentsOf(log, topics);
    await log.close();
    return contents;
  },

  /**
   * Opens a log that may be torn, reads it, makes it remove and store many events, and reads it again.
   *
   * @param resent ids of the first topic that are appended again, to count those that are remembered
   * @returns the contents at first and the number of duplicates, or the reason why the log was refused
   */
  async open(
    directory: string,
    topics: readonly string[],
    resent: readonly string[],
  ): Promise<{ refused: string } | (Contents & { duplicates: number })> {
    let log: EventLog;
    try {
      log = await openLmdbLog({ directory, fsync: false, dedup });
    } catch (error) {
      return { refused: (error as Error).message };
    }
    const contents = await contentsOf(log, topics);
    const writer = log.openWriter();
    const events = resent.map((id) => ({ topic: topics[0], id }));
    const { duplicates } = await writer.append(checked(...events));
    await log.close();

    const limited = await openLmdbLog({
      directory,
      fsync: false,
      dedup,
      retention: KEEP_LITTLE,
    });
    const again = limited.openWriter();
    for (let i = 0; i < 40; i++)
      await again.append(
        checked(...topics.map((topic) => ({ topic, body: 'new'.repeat(1 + 57 * i) }))),
      );
    await limited.close();
    const last = await openLmdbLog({ directory, fsync: false, dedup });
    await contentsOf(last, topics);
    await last.close();
    return { ...contents, duplicates };
  },
};

answer(methods);
