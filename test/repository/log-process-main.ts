import { AppendError, type EventWriter } from '../../src/repository/event-repository.js';
import type { EventLog } from '../../src/repository/event-log.js';
import { openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import { KEEP_ALL, type RetentionLimits } from '../../src/repository/retention.js';
import { formatCursor } from '../../src/wire/cursor.js';
import { type Seen, readAll } from '../contract/reading.js';
import { answer } from '../support/child-main.js';
import { checked } from '../wire/events.js';

export type Outcome = { stored: string } | { refused: AppendError['reason']; message: string };

export type Methods = typeof methods;

let log: EventLog;
const writers = new Map<string, EventWriter>();

const methods = {
  async open(
    directory: string,
    fsync: boolean,
    limits: Partial<RetentionLimits> = {},
  ): Promise<void> {
    log = await openLmdbLog({ directory, fsync, retention: { ...KEEP_ALL, ...limits } });
  },

  /** Resolves when they are stored, or refused. */
  async append(writer: string, topic: string, ids: string[], bodyBytes = 0): Promise<Outcome> {
    if (!writers.has(writer)) writers.set(writer, log.openWriter());
    const body = 'x'.repeat(bodyBytes);
    try {
      const events = checked(...ids.map((id) => ({ topic, id, body })));
      const { last } = await writers.get(writer)!.append(events);
      return { stored: formatCursor(last) };
    } catch (error) {
      if (!(error instanceof AppendError)) throw error;
      return { refused: error.reason, message: error.message };
    }
  },

  /** What there is to see of a topic right now. */
  async look(topic: string): Promise<{ head: string; events: Omit<Seen, 'body'>[] }> {
    const head = formatCursor(log.cursorAt(log.head));
    const events = await readAll(log, topic);
    return { head, events: events.map(({ id, position, cursor }) => ({ id, position, cursor })) };
  },

  async close(): Promise<void> {
    await log.close();
  },
};

answer(methods);
