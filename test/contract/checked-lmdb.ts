import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { EventLog, LogOptions } from '../../src/repository/event-log.js';
import { type LmdbOptions, openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';

/** Makes the next start check all of a log, as that of a copy. */
export function forgetLog(directory: string): void {
  rmSync(join(directory, 'log', 'opened'), { force: true });
}

/** Opens a log, all of which is checked: as it is opened, and once more when it has been closed. */
export async function openCheckedLog(options: LmdbOptions & LogOptions): Promise<EventLog> {
  const { directory, fsync } = options;
  forgetLog(directory);
  const log = await openLmdbLog(options);
  const close = log.close.bind(log);
  log.close = async () => {
    await close();
    forgetLog(directory);
    await (await openLmdbLog({ directory, fsync })).close();
  };
  return log;
}
