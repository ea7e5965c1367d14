import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { upload } from '../support/client.js';
import { smallDisk } from '../support/disk.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { useShim } from '../support/shim.js';
import { until } from '../support/wait.js';

const CALLS = 100;
const FORMATS = ['json', 'pretty'];

/** Makes calls, each of which the service logs in a line. */
async function makeCalls(service: ServiceProcess): Promise<void> {
  const client = service.connect();
  const answers = await Promise.all(Array.from({ length: CALLS }, () => upload(client, [])));
  expect(answers.every(({ result }) => result)).toBe(true);
}

const health = async ({ httpAddress }: ServiceProcess): Promise<number> =>
  (await fetch(`http://${httpAddress}/healthz`)).status;

const callLines = (log: string): number =>
  log.split('\n').filter((line) => line.includes('call ended')).length;

describe.each(FORMATS)('a log whose disk is full (%s)', (format) => {
  const start = async (log: string): Promise<ServiceProcess> => {
    const service = ServiceProcess.shell('exec bin/feed-server >>"$LOG"', {
      FEED_DATA_DIR: temporaryDirectory(),
      FEED_LOG_FORMAT: format,
      LOG: log,
    });
    await service.ready(() => readFileSync(log, { encoding: 'utf8', flag: 'a+' }));
    return service;
  };

  test('stops no call, and gets every line once there is room', async (context) => {
    const disk = smallDisk(context, 1);
    const log = join(disk.directory, 'log');
    const service = await start(log);
    disk.fill();
    await makeCalls(service);
    expect(await health(service)).toBe(200);
    expect(callLines(readFileSync(log, 'utf8'))).toBeLessThan(CALLS);

    disk.free();
    await until(() => callLines(readFileSync(log, 'utf8')) >= CALLS, 'every line');
    await makeCalls(service);
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(callLines(readFileSync(log, 'utf8'))).toBe(2 * CALLS);
    expect(readFileSync(log, 'utf8')).not.toContain('dropped');
  });

  test('does not delay the shutdown, and does not change the exit code', async (context) => {
    const disk = smallDisk(context, 1);
    const service = await start(join(disk.directory, 'log'));
    disk.fill();
    await makeCalls(service);
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(service.output).toEqual([]);
  });
});

describe('a log to which writes fail', () => {
  const shim = useShim(new URL('failing-output.c', import.meta.url));

  test('stops no call, whatever the error, and gets every line once writes succeed', async (context) => {
    const directory = temporaryDirectory();
    const failing = join(directory, 'failing');
    const service = await ServiceProcess.start({
      FEED_DATA_DIR: join(directory, 'data'),
      LD_PRELOAD: shim(context),
      SHIM_OUTPUT_ERROR: failing,
    });
    let written = 0;
    for (const code of ['EDQUOT', 'EIO', 'EPIPE', 'EFBIG', 'EAGAIN'] as const) {
      writeFileSync(`${failing}.new`, String(constants.errno[code]));
      renameSync(`${failing}.new`, failing);
      await makeCalls(service);
      expect(await health(service)).toBe(200);
      expect(callLines(service.output.join(''))).toBe(written);
      rmSync(failing);
      written += CALLS;
      await until(() => callLines(service.output.join('')) >= written, `every line after ${code}`);
    }
    expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(callLines(service.output.join(''))).toBe(written);
  });
});

test.each(FORMATS)('a log whose reader has gone stops no call (%s)', async (format) => {
  const service = await ServiceProcess.start({
    FEED_DATA_DIR: temporaryDirectory(),
    FEED_LOG_FORMAT: format,
  });
  service.process.stdout!.destroy();
  await makeCalls(service);
  expect(await health(service)).toBe(200);
  expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
});
