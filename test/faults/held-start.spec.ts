import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { upload } from '../support/client.js';
import { ServiceProcess } from '../support/service.js';
import { useShim } from '../support/shim.js';
import { event, heldDisk, idsIn } from './held-disk.js';

const slowSync = useShim(new URL('../repository/slow-sync.c', import.meta.url));

test.for([
  { log: 'a new log', stored: [] },
  { log: 'a log with events', stored: ['a', 'b'] },
])(
  'SIGTERM while a start with $log waits for the disk ends the process with 0 once the disk answers; the log can be opened again',
  async ({ stored }, context) => {
    const disk = heldDisk(slowSync(context));
    if (stored.length > 0) {
      const before = await ServiceProcess.start(disk.settings);
      await upload(
        before.connect(),
        stored.map((id) => event(id)),
      );
      await before.kill('SIGTERM');
    }
    disk.hold();
    const service = ServiceProcess.spawn(disk.settings);
    await disk.waits();
    service.process.kill('SIGTERM');
    await sleep(200); // the signal should arrive before the disk answers, which can't be seen from outside
    disk.release();
    expect(await service.ended()).toEqual({ code: 0, signal: null });
    expect(await idsIn(await ServiceProcess.start(disk.settings))).toEqual(stored);
  },
);
