import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { upload } from '../support/client.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { skip, works } from '../support/shim.js';
import { eventually, until } from '../support/wait.js';

const CALLS = 3_000;

test.each(['json', 'pretty'])(
  'a log that nobody reads stops no call, and has every line once it is read (%s)',
  async (format) => {
    const service = await ServiceProcess.start({
      FEED_DATA_DIR: temporaryDirectory(),
      FEED_LOG_FORMAT: format,
    });
    const client = service.connect();
    service.process.stdout!.pause();
    for (let i = 0; i < CALLS; i += 100) {
      // Each upload is a line in the log. All lines are three times what a pipe and its reader hold.
      const answers = await Promise.all(Array.from({ length: 100 }, () => upload(client, [])));
      expect(answers.every(({ result }) => result)).toBe(true);
    }
    expect((await fetch(`http://${service.httpAddress}/readyz`)).status).toBe(200);

    service.process.stdout!.resume();
    const ended = (): number => service.output.join('').split('call ended').length - 1;
    await eventually(() => expect(ended()).toBe(CALLS));
  },
);

test('a log that nobody reads does not delay the shutdown', async () => {
  const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
  const client = service.connect();
  service.process.stdout!.pause();
  for (let i = 0; i < CALLS; i += 100)
    await Promise.all(Array.from({ length: 100 }, () => upload(client, [])));
  expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
});

test('a second signal ends the process though nobody reads its terminal', async (context) => {
  if (!works('script', '--version')) skip(context, 'there is no script(1) to make a terminal');
  const pid = join(temporaryDirectory(), 'pid');
  const service = ServiceProcess.shell('exec script -qec "$COMMAND" /dev/null', {
    COMMAND: `echo $$ >${pid}; exec bin/feed-server`,
    SHELL: '/bin/sh',
    FEED_DATA_DIR: temporaryDirectory(),
    FEED_DRAIN_DELAY: '60s',
  });
  await service.ready();
  const client = service.connect();
  service.process.stdout!.pause();
  for (let i = 0; i < CALLS; i += 100)
    await Promise.all(Array.from({ length: 100 }, () => upload(client, [])));
  const signal = () => process.kill(Number(readFileSync(pid, 'utf8')), 'SIGTERM');
  signal();
  const probe = async () => (await fetch(`http://${service.httpAddress}/readyz`)).status;
  await until(async () => (await probe()) === 503, 'draining');
  await sleep(1_200); // signals within 1 s count as one
  signal();
  await until(
    () =>
      probe().then(
        () => false,
        () => true,
      ),
    'the end',
  );
  service.process.stdout!.resume();
});

test('the last lines are written before the process exits', async () => {
  const service = await ServiceProcess.start({ FEED_DATA_DIR: temporaryDirectory() });
  const client = service.connect();
  await Promise.all(Array.from({ length: 500 }, () => upload(client, [])));
  expect(await service.kill('SIGTERM')).toEqual({ code: 0, signal: null });
  expect(service.output.join('').split('call ended').length - 1).toBe(500);
  expect(service.output.join('')).toContain('draining');
});
