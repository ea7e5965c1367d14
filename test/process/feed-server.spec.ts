import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import type { ClientMethods } from '../costs/client-main.js';
import { Child } from '../support/child.js';
import { ServiceProcess, temporaryDirectory } from '../support/service.js';

const SERVER = fileURLToPath(new URL('../../bin/feed-server', import.meta.url));

/** MiB of the young generation. */
const BOUND = 32;

/** A folder with bin/feed-server, and with what it runs, where that is given: a script instead of the service. */
function installation(main?: string): string {
  const home = temporaryDirectory();
  mkdirSync(join(home, 'bin'));
  copyFileSync(SERVER, join(home, 'bin', 'feed-server'));
  if (main === undefined) return home;
  mkdirSync(join(home, 'dist'));
  writeFileSync(join(home, 'dist', 'main.js'), main);
  return home;
}

/** Puts a program named node into a directory of its own, for the PATH. */
function withNode(text: string): string {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, 'node'), `#!/bin/sh\n${text}\n`);
  chmodSync(join(directory, 'node'), 0o755);
  return `${directory}:/usr/bin:/bin`;
}

function run(command: string, { PATH = process.env.PATH, cwd = '/', args = [] as string[] } = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd,
    env: { PATH },
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { status, stdout, stderr };
}

test('runs what is beside it, from any directory and by a link, and hands its arguments on', () => {
  const home = installation('console.log(process.cwd(), process.argv.slice(2).join())');
  const cwd = temporaryDirectory();
  const link = join(cwd, 'feed');
  symlinkSync(join(home, 'bin', 'feed-server'), link);
  const PATH = `${join(process.execPath, '..')}:/usr/bin:/bin`;
  expect(run(link, { PATH, cwd, args: ['a', 'b c'] })).toEqual({
    status: 0,
    stdout: `${cwd} a,b c\n`,
    stderr: '',
  });
});

test('takes the node that is installed beside it before that of the PATH', () => {
  const home = installation('');
  mkdirSync(join(home, 'node_modules', '.bin'), { recursive: true });
  const installed = join(home, 'node_modules', '.bin', 'node');
  writeFileSync(installed, '#!/bin/sh\necho installed');
  chmodSync(installed, 0o755);
  const PATH = withNode('echo v24.0.0');
  expect(run(join(home, 'bin', 'feed-server'), { PATH }).stdout).toBe('installed\n');
});

test('refuses an older node with a sentence', () => {
  const PATH = withNode('echo v22.22.3');
  const { status, stderr } = run(join(installation(''), 'bin', 'feed-server'), { PATH });
  expect(stderr).toMatch(/^Feed needs node 24 or later: .*node is v22\.22\.3\.\n$/);
  expect(status).toBe(78);
});

test('says so where there is no node', () => {
  const PATH = temporaryDirectory();
  for (const tool of ['dirname', 'readlink']) symlinkSync(`/usr/bin/${tool}`, join(PATH, tool));
  const { status, stderr } = run(join(installation(''), 'bin', 'feed-server'), { PATH });
  expect(stderr).toBe('Feed needs node 24, and there is none in the PATH.\n');
  expect(status).toBe(78);
});

test('says what to do where nothing is built', () => {
  const { status, stderr } = run(join(installation(), 'bin', 'feed-server'));
  expect(stderr).toMatch(/^Feed is not built: .*dist\/main\.js is missing\..*npm run build.*\n$/);
  expect(status).toBe(78);
});

const packageJson = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { version: string };

/** Runs the built service, in a directory of its own in case that it starts. */
const runServer = (args: string[]) => run(SERVER, { args, cwd: temporaryDirectory() });

test.each(['--help', '-h'])('%s says how to run it, and exits with 0', (argument) => {
  const { status, stdout, stderr } = runServer([argument]);
  expect(stdout).toMatch(/^feed-server runs Feed/);
  for (const part of ['--help', '--version', 'environment variables', 'README.md', '78'])
    expect(stdout).toContain(part);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
});

test('--version says the version of package.json, and exits with 0', () => {
  const stdout = `${packageJson.version}\n`;
  expect(runServer(['--version'])).toEqual({ status: 0, stdout, stderr: '' });
});

test.each([[['foo']], [['--port', '1']], [['--version', 'foo']], [['-v']], [['restore']]])(
  'refuses the arguments %j with a sentence, and does not start',
  (args) => {
    const { status, stdout, stderr } = runServer(args);
    expect(stderr).toContain(`Feed can't start with these arguments: ${args.join(' ')}\n`);
    expect(stderr).toContain('environment variables');
    expect({ status, stdout }).toEqual({ status: 78, stdout: '' });
  },
);

/** Makes objects of which many stay, as when streams open by the thousand; says how large the young generation became. */
const GROW = `
  const { getHeapSpaceStatistics } = require('node:v8');
  (async () => {
    let most = 0;
    for (let round = 0; round < 10; round++) {
      const kept = [];
      for (let turn = 0; turn < 200; turn++) {
        for (let i = 0; i < 1_000; i++) kept.push({ i, text: String(i), more: [i, turn, i] });
        await new Promise(setImmediate);
      }
      const young = getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space');
      most = Math.max(most, young.space_size / 2 ** 20);
    }
    console.log(most);
  })();
`;

test('the young generation stays within its bound, which V8 by itself would exceed', () => {
  const home = installation(GROW);
  const bounded = run(join(home, 'bin', 'feed-server'));
  expect(Number(bounded.stdout)).toBeGreaterThan(0);
  expect(Number(bounded.stdout)).toBeLessThanOrEqual(BOUND);
  const byItself = run(process.execPath, { args: [join(home, 'dist', 'main.js')] });
  expect(Number(byItself.stdout)).toBeGreaterThan(BOUND);
});

/** Says at its end how often all of the heap was collected. */
const COUNT = `
  import { PerformanceObserver } from 'node:perf_hooks';
  let collections = 0;
  new PerformanceObserver((list) => {
    collections += list.getEntries().filter(({ detail }) => detail.kind === 4).length;
  }).observe({ type: 'gc' });
  process.once('exit', () => console.error('collections: ' + collections));
`;

/** In a service of its own, from its start to the end of an upload. */
async function collections(command: string, events: number): Promise<number> {
  const service = ServiceProcess.shell(`exec ${command}`, {
    FEED_DATA_DIR: temporaryDirectory(),
    NODE_OPTIONS: `--import="data:text/javascript,${encodeURIComponent(COUNT)}"`,
  });
  await service.ready();
  const client = new Child<ClientMethods>(new URL('../costs/client-main.ts', import.meta.url));
  onTestFinished(() => client.kill());
  await client.call('connect', service.grpcAddress);
  await client.call('upload', 'heap', events, 200);
  await service.kill('SIGTERM');
  return Number(/collections: (\d+)/.exec(service.output.join(''))![1]);
}

test('the whole heap is not collected while the service loads, as V8 would by itself', async () => {
  expect(await collections('bin/feed-server', 1)).toBe(0);
  expect(await collections('node_modules/.bin/node dist/main.js', 1)).toBeGreaterThan(0);
});

test('uploads at full speed have the whole heap collected less often than V8 would by itself', async () => {
  const events = 1_000_000;
  const ours = await collections('bin/feed-server', events);
  const byItself = await collections('node_modules/.bin/node dist/main.js', events);
  console.log(
    `collections of the whole heap in a million uploads: ${ours}, by V8 itself ${byItself}`,
  );
  expect(ours).toBeLessThan(byItself);
}, 600_000);

test('what is no longer used takes little more than half of what is, however fast buffers come and go', () => {
  const garbage = new URL('../../dist/process/garbage.js', import.meta.url).href;
  // 200 MiB of buffers are in use; 300 MiB of others come and go each second.
  const home = installation(`
    const { getHeapStatistics } = require('node:v8');
    const KIB_64 = 2 ** 16;
    const used = [];
    let made = 0;
    let most = 0;
    function turn(start) {
      const due = (performance.now() - start) * 2.4;
      // A process that stood still does not make up for it.
      if (due > made + 64) start = performance.now() - made / 2.4;
      for (let i = 0; i < 64 && made < due; i++, made++) {
        used[made % 3200] = Buffer.allocUnsafeSlow(KIB_64);
        Buffer.allocUnsafeSlow(KIB_64);
      }
      const { used_heap_size, external_memory } = getHeapStatistics();
      most = Math.max(most, (used_heap_size + external_memory) / 2 ** 20);
      if (made < 20_000) setImmediate(turn, start);
      else console.log(Math.round(most)), process.exit();
    }
    import('${garbage}').then(({ boundGarbage }) => { boundGarbage(); turn(performance.now()); });
  `);
  const PATH = `${join(process.execPath, '..')}:/usr/bin:/bin`;
  const { stdout, stderr } = run(join(home, 'bin', 'feed-server'), { PATH });
  expect(stderr).toBe('');
  expect(Number(stdout)).toBeGreaterThan(200);
  expect(Number(stdout)).toBeLessThan(600);
});
