import { randomInt } from 'node:crypto';
import { copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { Event } from '../../src/gen/feed/v1/feed.js';
import { take, upload } from '../support/client.js';
import { randomFrom } from '../support/random.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { useShim } from '../support/shim.js';
import { Witness } from './witness.js';

/** How many cuts the tests make in all. */
const CUTS = Number(process.env.FEED_TEST_POWER_CUTS ?? 6);
/** The seed of all random choices. The machine's timing is not repeated by it. */
const SEED = Number(process.env.FEED_TEST_SEED ?? randomInt(2 ** 31));

const event = (id: string): Partial<Event> => ({ id, topic: 'orders' });

/** A machine whose power can be cut. */
class Machine {
  private readonly directory = temporaryDirectory();
  private readonly platter = join(temporaryDirectory(), 'platter');
  private readonly file = join(this.directory, 'log', 'data.mdb');
  /** The file's name while a first start makes it. */
  private readonly newFile = join(this.directory, 'new-log', 'data.mdb');

  constructor(private readonly library: string) {
    writeFileSync(this.platter, '');
  }

  /** @param seed of the random writes that the disk keeps without a flush; without a seed, it keeps none of them */
  spawn(settings: Record<string, string> = {}, seed?: number): ServiceProcess {
    return ServiceProcess.spawn({
      FEED_DATA_DIR: this.directory,
      LD_PRELOAD: this.library,
      SHIM_FILE: this.file,
      SHIM_FILE_BEFORE: this.newFile,
      SHIM_PLATTER: this.platter,
      ...(seed === undefined ? {} : { SHIM_SEED: String(seed) }),
      ...settings,
    });
  }

  async start(settings?: Record<string, string>, seed?: number): Promise<ServiceProcess> {
    const service = this.spawn(settings, seed);
    await service.ready();
    return service;
  }

  /** Kills the service, and leaves of its file what is on the platter. */
  async cut(service: ServiceProcess): Promise<void> {
    await service.kill('SIGKILL');
    const file = [this.file, this.newFile].find(existsSync);
    if (file !== undefined) copyFileSync(this.platter, file);
    // LMDB's lock file lists the processes that have the file open. After a power cut there are none.
    rmSync(join(this.directory, 'log', 'lock.mdb'), { force: true });
  }

  get isAllFlushed(): boolean {
    return readFileSync(this.file).equals(readFileSync(this.platter));
  }
}

describe(`a power cut (FEED_TEST_SEED=${SEED})`, () => {
  const shim = useShim(new URL('power-cut.c', import.meta.url));
  const retention = { FEED_RETENTION_MAX_BYTES: '256KiB' };
  const disks = [
    { kept: 'only flushed writes', early: false, settings: {} },
    { kept: 'some other writes, in any order', early: true, settings: {} },
    { kept: 'some other writes, with retention', early: true, settings: retention },
  ];
  const cuts = Math.ceil(CUTS / disks.length);
  const timeout = 180_000 + cuts * 20_000;

  test.for(disks)(
    'takes nothing acknowledged or delivered; watches and uploads go on (the disk keeps $kept)',
    { timeout },
    async ({ early, settings }, context) => {
      const random = randomFrom(SEED);
      const witness = new Witness();
      const machine = new Machine(shim(context));
      const seed = () => (early ? random(2 ** 31) : undefined);
      let service = await machine.start(settings, seed());
      for (let cut = 0; cut < cuts; cut++) {
        witness.begin(service);
        await witness.sees(1 + random(200));
        await sleep(random(30));
        await machine.cut(service);
        await witness.ended();
        service = await machine.start(settings, seed());
        await witness.check(service);
      }
    },
  );

  test(
    'with retention takes no more than retention does',
    { timeout: 300_000 },
    async (context) => {
      const machine = new Machine(shim(context));
      const witness = new Witness();
      const before = await machine.start(retention, SEED);
      witness.begin(before);
      await witness.sees(2000);
      await machine.cut(before);
      await witness.ended();
      const after = await machine.start(retention, SEED);
      const held = await witness.check(after);
      // 256 KiB are about 1,000 of the events, and retention removes runs of 32 KiB.
      expect(held).toBeGreaterThan(600);
      expect(held).toBeLessThan(witness.acknowledgedCount);
    },
  );

  /** Cuts the power at a step of a start, and starts again. */
  async function cutAtStep(
    machine: Machine,
    step: number,
    seed: number,
  ): Promise<{ isStarted: boolean; again: ServiceProcess }> {
    const starting = machine.spawn({ SHIM_CUT: String(step) }, seed);
    const isStarted = await starting.ready().then(
      () => true,
      () => false,
    );
    await machine.cut(starting);
    return { isStarted, again: await machine.start() };
  }

  const isLong = process.env.FEED_TEST_POWER_CUTS !== undefined;
  const starts = [
    { which: 'first', had: [], from: 1, stride: isLong ? 1 : 4 },
    { which: 'later', had: ['a', 'b'], from: 1, stride: 1 },
  ];

  test.for(starts)(
    'at any step of the $which start leaves a log that can be opened, with all its events',
    { timeout: 300_000 },
    async ({ had, from, stride }, context) => {
      const random = randomFrom(SEED);
      for (let step = from + random(stride), isDone = false; !isDone; step += stride) {
        const machine = new Machine(shim(context));
        if (had.length > 0) {
          const before = await machine.start();
          await upload(before.connect(), had.map(event));
          await machine.cut(before);
        }
        const { isStarted, again } = await cutAtStep(machine, step, random(2 ** 31));
        isDone = isStarted;
        const client = again.connect();
        await upload(client, [event('later')]);
        const events = await take(client, { topic: 'orders', position: 1 }, had.length + 1);
        expect(events.map(({ id }) => id)).toEqual([...had, 'later']);
        await again.kill('SIGKILL');
      }
    },
  );

  test('after an orderly end takes nothing: all of the file is flushed, whatever FEED_DURABILITY is', async (context) => {
    for (const durability of ['fsync', 'none']) {
      const machine = new Machine(shim(context));
      const service = await machine.start({ FEED_DURABILITY: durability });
      const client = service.connect();
      for (let i = 0; i < 20; i++) await upload(client, [event(String(i))]);
      expect(machine.isAllFlushed).toBe(durability === 'fsync');
      expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
      expect(machine.isAllFlushed).toBe(true);
    }
  });

  test('without fsync takes acknowledged events, which shows that these tests would notice it', async (context) => {
    const machine = new Machine(shim(context));
    const flushing = await machine.start();
    await upload(flushing.connect(), [event('flushed')]);
    await machine.cut(flushing);

    const unflushed = await machine.start({ FEED_DURABILITY: 'none' });
    await upload(unflushed.connect(), [event('not flushed')]);
    await machine.cut(unflushed);

    const after = await machine.start();
    const client = after.connect();
    await upload(client, [event('later')]);
    const events = await take(client, { topic: 'orders', position: 1 }, 2);
    expect(events.map(({ id }) => id)).toEqual(['flushed', 'later']);
  });
});
