import { execFile } from 'node:child_process';
import { readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';
import { upToThrice } from '../support/wait.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The shell commands under "Try it on one machine": what makes the files, what starts the service, and what calls it. */
function commands(): string[] {
  const page = readFileSync(join(root, 'docs', 'security.md'), 'utf8');
  const [, section] = /^## Try it on one machine$(.*?)^## /ms.exec(page)!;
  return Array.from(section.matchAll(/^```sh\n(.*?)^```$/gms), ([, block]) => block);
}

async function run(script: string, cwd: string): Promise<string> {
  const { stdout, stderr } = await promisify(execFile)('bash', ['-euc', script], { cwd });
  return stdout + stderr;
}

// Some thirteen processes start, most of them one after the other.
test('the commands of docs/security.md make TLS, tokens and a policy that work', async () => {
  const [make, start, call, refused, follow, doctor] = commands();
  const directory = temporaryDirectory();
  symlinkSync(join(root, 'examples'), join(directory, 'examples'));
  await run(make, directory);
  const here = (text: string): string => text.replaceAll('data/try', `${directory}/data/try`);
  const settings = Object.fromEntries(
    Array.from(here(start).matchAll(/(FEED_\w+)=(\S+)/g), ([, name, value]) => [name, value]),
  );
  expect(settings).toHaveProperty('FEED_POLICY_FILE');
  const service = await ServiceProcess.start({
    ...settings,
    FEED_METRICS_ADDRESS: '127.0.0.1:0',
    FEED_DATA_DIR: join(directory, 'log'),
  });
  const port = (address: string): string => address.split(':')[1];
  const asked = (script: string): string =>
    here(script)
      .replace('localhost:50051', `localhost:${port(service.grpcAddress)}`)
      .replace('localhost:8080', `localhost:${port(service.httpAddress)}`)
      .replace('127.0.0.1:9464', service.metricsAddress);
  const output = await run(asked(call), root);
  expect(output).toContain('1 line stored in orders.new');
  expect(output).toMatch(/^\S+Z \S+ hello$/m);
  expect(output).toMatch(/ 1 .* orders\.new$/m);
  expect(output).toContain('"status":"ok"');
  expect(output).toContain('feed_build_info');

  // The other calls are made in the same shell.
  const [exported] = call.split('\n');
  const inShell = (script: string): Promise<string> => run(asked(`${exported}\n${script}`), root);
  await expect(inShell(refused)).rejects.toMatchObject({
    code: 77,
    stderr: expect.stringContaining('TOPIC_FORBIDDEN'),
  });
  // It ends only here: at the first heartbeat after grep, which reads the first event.
  const watch = follow.trimEnd().replace('from=earliest', 'from=earliest&heartbeat=1s');
  expect(await inShell(`${watch} | grep -m 1 '^data: '`)).toContain('"body":"hello"');
  // A check fails, and so the command, where the service or the command stands still for 5 s.
  const [checked] = await upToThrice(
    () => Promise.allSettled([inShell(doctor)]),
    ([{ status }]) => status === 'fulfilled',
  );
  expect(checked).toEqual({
    status: 'fulfilled',
    value: expect.stringMatching(/^ok +delivery .* in orders\.doctor$/m),
  });
}, 400_000);
