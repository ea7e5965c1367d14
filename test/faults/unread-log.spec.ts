import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { upload } from '../support/client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { until } from '../support/wait.js';

const CALLS = 3_000;

test('a log that nobody reads stops nobody, and has every line once it is read', async () => {
  const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
  const client = service.connect();
  service.process.stdout!.pause();
  for (let i = 0; i < CALLS; i += 100) {
    // Each is a line: three times what a pipe and its reader hold.
    const answers = await Promise.all(Array.from({ length: 100 }, () => upload(client, [])));
    expect(answers.every(({ result }) => result)).toBe(true);
  }
  expect((await fetch(`http://${service.httpAddress}/readyz`)).status).toBe(200);

  service.process.stdout!.resume();
  const ended = (): number => service.output.join('').split('"call ended"').length - 1;
  await until(() => ended() >= CALLS, 'every line');
  expect(ended()).toBe(CALLS);
});

test('a log that nobody reads does not hold up the end', async () => {
  const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
  const client = service.connect();
  service.process.stdout!.pause();
  for (let i = 0; i < CALLS; i += 100)
    await Promise.all(Array.from({ length: 100 }, () => upload(client, [])));
  const ended = await Promise.race([service.kill('SIGTERM'), sleep(10_000)]);
  expect(ended).toEqual({ code: null, signal: 'SIGKILL' });
});

test('the last lines are written before the process exits', async () => {
  const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
  const client = service.connect();
  await Promise.all(Array.from({ length: 500 }, () => upload(client, [])));
  expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  const output = (): string => service.output.join('');
  await until(() => output().split('"call ended"').length - 1 === 500, 'every line');
  expect(output()).toContain('draining');
});
