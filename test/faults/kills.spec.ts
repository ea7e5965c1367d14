import { expect, test } from 'vitest';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually } from '../support/wait.js';
import { Witness } from './witness.js';

/** How often the service is killed. */
const KILLS = Number(process.env.FEED_TEST_KILLS ?? 4);

test(
  'a service that is killed amid uploads and watches has every acknowledged event after a restart, once, in order; watches resume',
  { timeout: 60_000 + KILLS * 20_000 },
  async () => {
    const settings = { FEED_DATA_DIR: temporaryDirectory() };
    const witness = new Witness();
    let service = await ServiceProcess.start(settings);
    for (let kill = 0; kill < KILLS; kill++) {
      witness.begin(service);
      await witness.sees(100);
      await eventually(() =>
        expect(witness.deliveredCount).toBeGreaterThanOrEqual(10 * (kill + 1)),
      );
      await service.kill('SIGKILL');
      await witness.ended();
      service = await ServiceProcess.start(settings);
      await witness.check(service);
    }
    expect(witness.acknowledgedCount).toBeGreaterThanOrEqual(100 * KILLS);
  },
);
