import { expect, test } from 'vitest';
import { upload } from '../support/client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { eventually } from '../support/wait.js';

const CALLS = 3_000;

/** How many lines its log has that say that a call has ended. */
const callsEnded = (service: ServiceProcess): number =>
  service.output.join('').split('"call ended"').length - 1;

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
  await eventually(() => expect(callsEnded(service)).toBe(CALLS));
});

test('a log that nobody reads does not hold up the end', async () => {
  const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
  const client = service.connect();
  service.process.stdout!.pause();
  for (let i = 0; i < CALLS; i += 100)
    await Promise.all(Array.from({ length: 100 }, () => upload(client, [])));
  service.process.kill('SIGTERM');
  expect(await service.ended(20_000)).toEqual({ code: null, signal: 'SIGKILL' });
});

test('the last lines are written before the process exits', async () => {
  const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
  const client = service.connect();
  await Promise.all(Array.from({ length: 500 }, () => upload(client, [])));
  expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  expect(callsEnded(service)).toBe(500);
  expect(service.output.join('')).toContain('draining');
});
