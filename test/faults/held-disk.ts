import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { upload } from '../support/client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until } from '../support/wait.js';

export const event = (id: string, body = ''): Partial<Event> => ({ id, topic: 'orders', body });

/** Returns settings for a service whose flushes wait from hold() until release(), as on a disk that does not answer. */
export function heldDisk(slowSync: string, settings: Record<string, string> = {}) {
  const hold = join(temporaryDirectory(), 'hold');
  return {
    settings: {
      FEED_DATA_DIR: temporaryDirectory(),
      LD_PRELOAD: slowSync,
      SHIM_HOLD: hold,
      ...settings,
    },
    hold: () => writeFileSync(hold, ''),
    /** Resolves once a flush waits. */
    waits: () => until(() => existsSync(`${hold}.reached`), 'a flush that waits'),
    release: () => rmSync(hold),
  };
}

/** Starts a service that has stored one event, and whose next commit will wait for the disk. */
export async function startHeld(slowSync: string, others: Record<string, string> = {}) {
  const { settings, hold, waits, release } = heldDisk(slowSync, others);
  const service = await ServiceProcess.start(settings);
  const client = service.connect();
  expect((await upload(client, [event('before')])).result?.received).toBe(1);
  hold();
  return { service, client, waits, release, restart: () => ServiceProcess.start(settings) };
}

/** Returns the ids of all stored events. */
export async function idsIn(service: ServiceProcess): Promise<string[]> {
  const client = service.connect();
  const marker = (await upload(client, [event('end')])).result!.lastCursor;
  const ids: string[] = [];
  for await (const { id, cursor } of client.Watch({
    topic: 'orders',
    position: 1,
  }) as AsyncIterable<Event>) {
    if (cursor === marker) break;
    ids.push(id);
  }
  return ids;
}
