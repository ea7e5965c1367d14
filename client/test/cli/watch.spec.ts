import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Authority } from '../../../test/support/certificates.js';
import { freeAddress } from '../../../test/support/ports.js';
import { temporaryDirectory } from '../../../test/support/service.js';
import { eventually, until, upToThrice, within } from '../../../test/support/wait.js';
import { ScriptedServer, status } from '../scripted-server.js';
import { numbers } from '../service.js';
import {
  type RunningCommand,
  runFeed,
  startFeed,
  startOnTerminal,
  startShell,
} from './run-command.js';
import { startService, store } from './topic.js';

const HAS_SCRIPT = spawnSync('script', ['--version']).status === 0;
if (!HAS_SCRIPT)
  process.stderr.write('Skipped: what needs a terminal, because script is missing.\n');

interface JsonEvent {
  readonly id: string;
  readonly topic: string;
  readonly body: string;
  readonly at: string;
  readonly cursor: string;
}

function json(stdout: string): JsonEvent[] {
  const lines = stdout.split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as JsonEvent);
}

const bodiesOf = (stdout: string): string[] => json(stdout).map(({ body }) => body);

describe('feed watch', () => {
  test('prints a line with time, id and body for each event, without colour in a pipe, and ends after n', async () => {
    const { grpcAddress: address } = await startService();
    await store(address, 't', ['one', 'two\nlines\u001b[2J\u009b', 'three']);
    const { code, stdout, stderr } = await runFeed(
      ['watch', 't', '--from', 'earliest', '--until', '2'],
      { FEED_ADDRESS: address },
    );
    expect(code).toBe(0);
    expect(stdout.split('\n')).toEqual([
      expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z \S+ one$/),
      expect.stringMatching(/Z \S+ two\\nlines\\u001b\[2J\\u009b$/),
      '',
    ]);
    expect(stderr).toMatch(
      /^t: reading what is stored\n2 events of t; go on with --from \S{16}\n$/,
    );
  });

  test('prints JSON with the cursor, after which it goes on', async () => {
    const { grpcAddress: address } = await startService();
    await store(address, 't', numbers(0, 10));
    const watch = async (...args: string[]): Promise<string> =>
      (await runFeed(['watch', 't', '--json', '--address', address, ...args])).stdout;
    const first = json(await watch('--from', 'earliest', '--until', '3'));
    expect(first.map(({ body, topic }) => ({ body, topic }))).toEqual(
      ['0', '1', '2'].map((body) => ({ body, topic: 't' })),
    );
    const { cursor, at } = first[2];
    expect(new Date(at).toISOString()).toBe(at);
    expect(bodiesOf(await watch('--from', cursor, '--until', '2'))).toEqual(['3', '4']);
    expect(bodiesOf(await watch('--last', '2', '--until', '2'))).toEqual(['8', '9']);
    expect(bodiesOf(await watch('--from', '1h', '--until', '1'))).toEqual(['0']);
    expect(bodiesOf(await watch('--from', '99999d', '--until', '1'))).toEqual(['0']);
    const ago = new Date(Date.now() - 3_600_000).toISOString();
    for (const time of [ago, `${ago.slice(0, 19)}+00:00`, `${ago.slice(0, 16)}Z`])
      expect(bodiesOf(await watch('--from', time, '--until', '1'))).toEqual(['0']);
  });

  test('prints the topic of each event of several topics, in the order of the log', async () => {
    const { grpcAddress: address } = await startService();
    const topics = ['orders.eu.paid', 'orders.created', 'orders.eu.sent', 'orders.us.paid'];
    for (const topic of topics) await store(address, topic, [`of ${topic}`]);
    const args = ['orders.created', 'orders.*.paid', '--from', 'earliest', '--until', '3'];
    const { code, stdout, stderr } = await runFeed(['watch', ...args], { FEED_ADDRESS: address });
    expect(code).toBe(0);
    expect(stdout.split('\n').map((line) => line.split(' ').toSpliced(2, 1).slice(1))).toEqual([
      ['orders.eu.paid', 'of', 'orders.eu.paid'],
      ['orders.created', 'of', 'orders.created'],
      ['orders.us.paid', 'of', 'orders.us.paid'],
      [],
    ]);
    expect(stderr).toMatch(
      /^orders\.created, orders\.\*\.paid: reading what is stored\n3 events of orders\.created, orders\.\*\.paid; go on with --from \S{16}\n$/,
    );
    const all = await runFeed(['watch', '>', '--json', '--from', 'earliest', '--until', '4'], {
      FEED_ADDRESS: address,
    });
    expect(json(all.stdout).map(({ topic }) => topic)).toEqual(topics);
  });

  test('says that a comma does not separate topics', async () => {
    const { grpcAddress: address } = await startService();
    await store(address, 'a,b', ['x']);
    const args = ['watch', 'a,b', '--from', 'earliest', '--until', '1'];
    const { stderr } = await runFeed(args, { FEED_ADDRESS: address });
    expect(stderr).toMatch(/^a,b is taken for one topic, .*: put a space between topics\n/);
  });

  test('of all topics with a checkpoint goes on after kills with every event, in order, where a topic was deleted', async () => {
    const { grpcAddress: address } = await startService();
    const checkpoint = join(temporaryDirectory(), 'cursor');
    await store(address, 'a', numbers(0, 3_000));
    await store(address, 'b', ['x']);
    await runFeed(['topic', 'b', '--delete'], { FEED_ADDRESS: address });
    const args = ['watch', '>', '--json', '--from', 'earliest', '--checkpoint', checkpoint];
    const killed = startFeed([...args, '--exec', 'true'], { FEED_ADDRESS: address });
    await until(() => existsSync(checkpoint), 'a checkpoint');
    killed.process.kill('SIGKILL');
    const { stderr } = await killed.ended;
    expect(stderr).not.toContain('gap');
    const [cursor] = readFileSync(checkpoint, 'utf8').split('\n');
    const after = startFeed([...args, '--fail-on-gap'], { FEED_ADDRESS: address });
    await until(() => after.stdout.includes('"body":"2999"'), 'the last event');
    after.process.kill('SIGTERM');
    const bodies = bodiesOf((await after.ended).stdout);
    expect(bodies).toEqual(numbers(Number(bodies[0]), 3_000));
    const first = json(after.stdout)[0].cursor;
    expect(first > cursor).toBe(true);
    expect(Number(bodies[0])).toBeGreaterThan(0);
  });

  test('that got nothing says after which cursor to go on as well', async () => {
    const { grpcAddress: address } = await startService();
    const watch = startFeed(['watch', 'orders'], { FEED_ADDRESS: address });
    await until(() => watch.stderr.includes('live'), 'the watch');
    watch.process.kill('SIGINT');
    const { code, stderr } = await watch.ended;
    expect(code).toBe(0);
    expect(stderr).toMatch(/0 events of orders; go on with --from [0-9a-z]{16}\n$/);
  });

  test('begins with what is stored from now on, and Ctrl-C sums it up with exit code 0', async () => {
    const { grpcAddress: address } = await startService();
    await store(address, 't', ['before']);
    const watch = startFeed(['watch', 't', '--json'], { FEED_ADDRESS: address });
    await until(() => watch.stderr.includes('t: live\n'), 'a watch that is live');
    await store(address, 't', ['after']);
    await eventually(() => expect(bodiesOf(watch.stdout)).toEqual(['after']));
    watch.process.kill('SIGINT');
    const { code, stderr } = await watch.ended;
    expect(code).toBe(0);
    expect(stderr).toMatch(/\n1 event of t; go on with --from \S{16}\n$/);
  });

  test('says nothing when the server moves it to another connection', async () => {
    const { grpcAddress: address } = await startService({
      FEED_MAX_CONNECTION_AGE: '1s',
      FEED_MAX_CONNECTION_AGE_GRACE: '0s',
    });
    const watch = startFeed(['watch', 't', '--json', '--until', '3'], { FEED_ADDRESS: address });
    await until(() => watch.stderr.includes('t: live\n'), 'a watch that is live');
    for (const body of ['a', 'b', 'c']) {
      await sleep(1_500); // longer than a connection lives
      await store(address, 't', [body]);
    }
    const { stdout, stderr } = await watch.ended;
    expect(bodiesOf(stdout)).toEqual(['a', 'b', 'c']);
    // But for a call that crosses the server's GOAWAY.
    const crossed =
      /.* by a reset with HTTP\/2 error 7; trying again\nconnected again; t: (live|reading what is stored)\n/g;
    expect(stderr.replaceAll(crossed, '')).not.toContain('again');
  });

  test('that a signal ends before its n events has the exit code of the signal', async () => {
    const { grpcAddress: address } = await startService();
    for (const [signal, expected] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
    ] as const) {
      const watch = startFeed(['watch', 't', '--until', '1'], { FEED_ADDRESS: address });
      await until(() => watch.stderr.includes('live'), 'a watch that is live');
      watch.process.kill(signal);
      expect((await watch.ended).code).toBe(expected);
    }
  });

  test('takes a signal that npx repeats for one, and ends at once by a second one', async () => {
    const { grpcAddress: address } = await startService();
    const env = { FEED_ADDRESS: address };
    await store(address, 't', ['x']);
    const file = join(temporaryDirectory(), 'go-on');
    const exec = `echo started; until test -e ${file}; do sleep 0.05; done`;
    const repeated = startFeed(['watch', 't', '--last', '1', '--exec', exec], env);
    await until(() => repeated.stdout === 'started\n', 'a command that runs');
    // The two signals differ, because two of one kind may come as one. The command is stopped meanwhile, so that it gets both
    // at once, even if this process stands still between them.
    for (const signal of ['SIGSTOP', 'SIGINT', 'SIGTERM', 'SIGCONT'] as const)
      repeated.process.kill(signal);
    await sleep(100);
    writeFileSync(file, '');
    expect(await repeated.ended).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('1 event of t'),
    });
    const later = async (): Promise<number | null> => {
      const waits = `echo started; until test -e ${file}; do sleep 0.05; done`;
      rmSync(file);
      const watch = startFeed(['watch', 't', '--last', '1', '--exec', waits], env);
      await until(() => watch.stdout === 'started\n', 'a command that runs');
      watch.process.kill('SIGINT');
      await sleep(700);
      watch.process.kill('SIGTERM');
      await sleep(100);
      writeFileSync(file, '');
      return (await watch.ended).code;
    };
    // npx may stand still before it repeats a signal. This process may, too, until the second one is no repeat.
    expect(await upToThrice(later, (code) => code === 0)).toBe(0);
    const busy = startFeed(['watch', 't', '--last', '1', '--exec', 'echo started; sleep 20'], env);
    await until(() => busy.stdout === 'started\n', 'a command that runs');
    await interruptUntilOver(busy);
    expect(busy.process.signalCode).toBe('SIGINT');
  });

  test('ends at once by a second signal also while the system waits for a file', async () => {
    const checkpoint = join(temporaryDirectory(), 'pipe');
    spawnSync('mkfifo', [checkpoint]);
    const watch = startFeed(['watch', 't', '--checkpoint', checkpoint]);
    // The command waits for what this process writes, and that can be opened only once the command has begun.
    const writer = await eventually(() =>
      openSync(checkpoint, constants.O_WRONLY | constants.O_NONBLOCK),
    );
    onTestFinished(() => closeSync(writer));
    await interruptUntilOver(watch);
    expect(watch.process.signalCode).toBe('SIGINT');
  });

  test('ends by one signal, though its reader takes nothing any more', async () => {
    const { grpcAddress: address } = await startService();
    await store(address, 't', numbers(0, 100_000));
    const interrupted = async () => {
      const watch = startFeed(['watch', 't', '--from', 'earliest'], { FEED_ADDRESS: address });
      watch.process.stdout!.pause();
      await until(() => watch.stderr.includes('reading what is stored'), 'the watch');
      await sleep(1_000);
      watch.process.kill('SIGTERM');
      const [code] = await within(once(watch.process, 'exit'), 'the end');
      watch.process.stdout!.resume();
      return { code: code as number, stderr: (await watch.ended).stderr };
    };
    // On a busy machine, the signal may come before the pipe is full.
    const { code, stderr } = await upToThrice(interrupted, (ending) => ending.code === 143);
    expect(code).toBe(143);
    expect(stderr).toContain('feed: interrupted: the reader of standard output has not taken all');
  });

  /** Sends SIGINT again and again: a process that stands still takes two for one, or the second one for an echo. */
  function interruptUntilOver({ process }: RunningCommand): Promise<void> {
    const isOver = (): boolean =>
      process.exitCode !== null || process.signalCode !== null || !process.kill('SIGINT');
    return until(isOver, 'the end by another signal', 30_000, 1_200);
  }

  /** Runs `feed watch t` with no stream on a terminal. Returns what it writes, and its pid. */
  async function watchIntoFile(shell: (command: string) => RunningCommand) {
    const file = (name: string): string => join(temporaryDirectory(), name);
    const [log, pidFile] = [file('log'), file('pid')];
    const text = (path: string): string => (existsSync(path) ? readFileSync(path, 'utf8') : '');
    const running = shell(
      `$NODE $PROGRAM watch t < /dev/null > ${log} 2>&1 & echo $! > ${pidFile}; wait $!`,
    );
    await until(() => text(log).includes('t: live'), 'a watch that is live');
    await until(() => text(pidFile).endsWith('\n'), 'its pid');
    const pid = Number(text(pidFile));
    onTestFinished(() => {
      if (running.process.exitCode === null) process.kill(pid, 'SIGKILL');
    });
    return { running, written: () => text(log), pid };
  }

  test.skipIf(!HAS_SCRIPT)(
    'goes on when the terminal closes on one that nohup started',
    async () => {
      const { grpcAddress: address } = await startService();
      const { running, written, pid } = await watchIntoFile((command) =>
        startShell('exec script -qec "$COMMAND" /dev/null', {
          COMMAND: command,
          SHELL: '/bin/sh',
          FEED_ADDRESS: address,
        }),
      );
      process.kill(pid, 'SIGHUP');
      await store(address, 't', ['after']);
      await until(() => written().includes(' after\n'), 'the event');
      process.kill(pid, 'SIGTERM');
      await running.ended;
      expect(written()).toContain('1 event of t');
    },
  );

  test('ends in order by SIGHUP where it was started without a terminal', async () => {
    const { grpcAddress: address } = await startService();
    const { running, written, pid } = await watchIntoFile((command) =>
      startShell(command, { FEED_ADDRESS: address }),
    );
    process.kill(pid, 'SIGHUP');
    await within(running.ended, 'the end');
    expect(written()).toContain('0 events of t');
  });

  test('a disk that is full is named, with exit code 66', async () => {
    const { grpcAddress: address } = await startService();
    await store(address, 't', ['x']);
    const { stdout, stderr } = await startShell(
      'feed watch t --last 1 --until 1 > /dev/full; echo $?',
      { FEED_ADDRESS: address },
    ).ended;
    expect(stderr).toContain(
      "standard output can't be written to: ENOSPC (no space left on device)",
    );
    expect(stdout).toBe('66\n');
  });

  test('says at once that no server is there, and once again when one has come', async () => {
    const address = await freeAddress();
    const watch = startFeed(['watch', 't', '--until', '1'], { FEED_ADDRESS: address });
    const away = `can't connect to ${address}: ECONNREFUSED; trying again\n`;
    await eventually(() => expect(watch.stderr).toBe(away));
    await startService({ FEED_GRPC_ADDRESS: address });
    // After 10 s, it says that it is still trying.
    const said = (): string => watch.stderr.replaceAll(/.*; still trying, .*\n/g, '');
    await eventually(() => expect(said()).toBe(`${away}connected again; t: live\n`));
    await store(address, 't', ['x']);
    expect((await watch.ended).code).toBe(0);
  });

  test('says that it is live after the lines of the events before', async () => {
    const { grpcAddress: address } = await startService();
    await store(address, 't', ['stored']);
    const watch = startShell('feed watch t --from earliest 2>&1', { FEED_ADDRESS: address });
    await eventually(() =>
      expect(watch.stdout).toMatch(/^t: reading what is stored\n.* stored\nt: live\n$/),
    );
  });

  test('ends quietly with exit code 0 when its reader goes away', async () => {
    const { grpcAddress: address } = await startService();
    await store(address, 't', numbers(0, 100_000));
    const { stdout, stderr } = await startShell(
      `feed watch t --from earliest --json | head -n 2; echo "code \${PIPESTATUS[0]}"`,
      { FEED_ADDRESS: address },
    ).ended;
    expect(stdout.split('\n').slice(2)).toEqual(['code 0', '']);
    expect(stderr).toBe('t: reading what is stored\n');
  });

  test('with a checkpoint goes on after a kill with every event, in order', async () => {
    const { grpcAddress: address } = await startService();
    const checkpoint = join(temporaryDirectory(), 'cursor');
    const args = ['watch', 't', '--json', '--from', 'earliest', '--checkpoint', checkpoint];
    await store(address, 't', numbers(0, 5_000));
    const killed = startFeed(args, { FEED_ADDRESS: address });
    await until(() => existsSync(checkpoint), 'a checkpoint');
    killed.process.kill('SIGKILL');
    const before = bodiesOf((await killed.ended).stdout);
    await store(address, 't', ['5000']);
    const after = startFeed(args, { FEED_ADDRESS: address });
    await until(() => after.stdout.includes('"body":"5000"'), 'the last event');
    after.process.kill('SIGTERM');
    const bodies = bodiesOf((await after.ended).stdout);
    // What was printed since the last save comes again, and nothing is missing.
    expect(Number(bodies[0])).toBeLessThanOrEqual(before.length);
    expect(bodies).toEqual(numbers(Number(bodies[0]), 5_001));
    // An end in order saves the cursor: nothing comes again.
    const saved = readFileSync(checkpoint, 'utf8').trim();
    expect(json(after.stdout).at(-1)!.cursor).toBe(saved);
  });

  test('runs a command for each event, again until it succeeds, and goes on there after a kill', async () => {
    const { grpcAddress: address } = await startService();
    const directory = temporaryDirectory();
    const file = (name: string): string => join(directory, name);
    await store(address, 't', ['1', '2', '3', '4']);
    // It fails for the second event as long as there is no file "mended", and without a line, if the kill comes before that.
    const exec = `read -r line || exit 1; case "$line" in *'"body":"2"'*) test -e ${file('mended')} || { echo x >> ${file('failures')}; exit 7; };; esac; echo "$FEED_TOPIC $FEED_CURSOR $line" >> ${file('done')}`;
    const args = [
      'watch',
      't',
      '--from',
      'earliest',
      '--checkpoint',
      file('cursor'),
      '--exec',
      exec,
    ];
    const first = startFeed(args, { FEED_ADDRESS: address });
    await until(
      () => existsSync(file('failures')) && readFileSync(file('failures'), 'utf8').length >= 4,
      'two failures',
    );
    await until(() => existsSync(file('cursor')), 'a checkpoint');
    first.process.kill('SIGKILL');
    expect((await first.ended).stderr).toMatch(
      /the command ended with exit code 7 for the event \S+; trying again now\n/,
    );
    const handled = (): JsonEvent[] =>
      readFileSync(file('done'), 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line) => {
          const [topic, cursor, ...rest] = line.split(' ');
          const event = JSON.parse(rest.join(' ')) as JsonEvent;
          expect({ topic, cursor }).toEqual({ topic: 't', cursor: event.cursor });
          return event;
        });
    expect(handled().map(({ body }) => body)).toEqual(['1']);
    startShell(`touch ${file('mended')}`);
    await until(() => existsSync(file('mended')), 'the file');
    const { code, stderr } = await runFeed([...args, '--until', '3'], { FEED_ADDRESS: address });
    expect(code, stderr).toBe(0);
    expect(handled().map(({ body }) => body)).toEqual(['1', '2', '3', '4']);
  });

  test('tries a command again that could not be started for want of descriptors', async () => {
    const { grpcAddress: address } = await startService();
    const args = ['watch', 't', '--until', '1', '--exec', 'cat'];
    const watch = startFeed(args, { FEED_ADDRESS: address });
    await until(() => watch.stderr.includes('t: live\n'), 'a watch that is live');
    const limit = (descriptors: number) =>
      spawnSync('prlimit', ['--pid', String(watch.process.pid), `--nofile=${descriptors}:1024`]);
    expect(limit(3).status).toBe(0);
    await store(address, 't', ['x']);
    await until(() => watch.stderr.includes('in 0.'), 'a second failure');
    limit(1_024);
    const { code, stdout, stderr } = await watch.ended;
    expect(stderr).toMatch(
      /the command could not be started \(.*EMFILE.*\) for the event \S+; trying/,
    );
    expect({ code, bodies: bodiesOf(stdout) }).toEqual({ code: 0, bodies: ['x'] });
  });

  test('on a gap, says what was removed and goes on; with --fail-on-gap it ends with 1', async () => {
    const { grpcAddress: address } = await startService({ FEED_RETENTION_MAX_BYTES: '1MiB' });
    await store(address, 't', ['first']);
    const first = json(
      (
        await runFeed(['watch', 't', '--json', '--from', 'earliest', '--until', '1'], {
          FEED_ADDRESS: address,
        })
      ).stdout,
    );
    await store(
      address,
      't',
      numbers(0, 400).map((n) => n.padEnd(10_000, '.')),
    );
    const from = ['--from', first[0].cursor, '--until', '1', '--json'];
    // Retention removes them with the next commit, or within a second.
    await eventually(async () => {
      const on = await runFeed(['watch', 't', ...from], { FEED_ADDRESS: address });
      expect(on.code, on.stderr).toBe(0);
      expect(on.stderr).toContain(`a gap: retention removed events after ${first[0].cursor}`);
    });
    const failed = await runFeed(['watch', 't', ...from, '--fail-on-gap'], {
      FEED_ADDRESS: address,
    });
    expect(failed.code).toBe(1);
    expect(failed.stderr).toContain('CURSOR_EXPIRED');
    expect(failed.stdout).toBe('');
  });

  test.each([
    [['watch'], {}, 64, "missing required argument 'topic'"],
    [['watch', 't', '--from', 'yesterday'], {}, 64, 'It is earliest, live, a cursor'],
    [['watch', 't', '--from', '99999999999d'], {}, 64, 'It is earliest, live, a cursor'],
    [['watch', 't', '--from', '2026-13-01T00:00:00Z'], {}, 64, 'It is earliest, live, a cursor'],
    [['watch', 't', '--from', '2026-01-01T00:00:00'], {}, 64, 'such as 2026-01-31T12:00:00Z'],
    [['watch', 't', '--last', '4294967296'], {}, 64, 'from 0 to 4,294,967,295'],
    [['watch', 't', '--from', 'live', '--last', '1'], {}, 64, 'cannot be used with'],
    [['watch', 't', '--until', '0'], {}, 64, 'from 1 to'],
    [['watch', 't', '--address', 'a:b:c'], {}, 64, '--address: "a:b:c" is not an address'],
    [
      ['watch', 't'],
      { FEED_ADDRESS: 'http://x' },
      78,
      'FEED_ADDRESS: "http://x" is not an address',
    ],
    [['watch', 't', '--ca', '/no/such.pem'], {}, 78, '/no/such.pem: ENOENT'],
    [['watch', 't', '--cert', '/dev/null'], {}, 78, 'belong together'],
    [['watch', 't'], { FEED_TOKEN: 'a\nb' }, 78, 'the token'],
    [['watch', 't'], { FEED_TOKEN_FILE: '/no/such/token' }, 78, '/no/such/token: ENOENT'],
    [['watch', 't', '--token-file', '/dev/null'], {}, 78, 'is empty: /dev/null'],
    [['watch', 't', '--token-file', 'x'], { FEED_TOKEN: 'x' }, 78, 'give one'],
    [
      ['watch', 't', '--checkpoint', '/no/such/cursor'],
      {},
      66,
      "/no/such/cursor can't be used: ENOENT (no such file or directory)",
    ],
    [['wathc', 't'], {}, 64, 'Did you mean watch?'],
    [
      ['watch', 't', '--address', 'https://ann:p,@ss@x'],
      {},
      64,
      '--address: an address has an "@"',
    ],
  ] as const)('%j with %j ends with %i', async (args, env, expected, text) => {
    const { code, stdout, stderr } = await runFeed(args, env);
    expect(stderr).toContain(text);
    expect({ code, stdout }).toEqual({ code: expected, stdout: '' });
  });

  const PEM = '-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----';

  test.each([
    [['--token-file', 'eyJhbGci.eyJzdWIi.c2VjcmV0'], {}, 'file of the token'],
    [[], { FEED_TOKEN_FILE: 'eyJhbGci.eyJzdWIi.c2VjcmV0' }, 'file of the token'],
    [['--ca', PEM], {}, 'authorities of the TLS settings'],
    [['--cert'], { FEED_CLIENT_TLS_KEY: PEM }, "the key can't be read"],
  ] as const)(
    'a secret in place of the path of its file is not shown: %j with %j',
    async (args, env, what) => {
      const { cert } = new Authority(temporaryDirectory());
      const all = ['watch', 't', ...args, ...(args[0] === '--cert' ? [cert] : [])];
      const { code, stderr } = await runFeed(all, env);
      expect(code).toBe(78);
      expect(stderr).toContain(what);
      expect(stderr).not.toMatch(/eyJ|c2VjcmV0/);
    },
  );

  test('a topic that the server refuses ends it with 1 and the reason', async () => {
    const { grpcAddress: address } = await startService();
    const { code, stderr } = await runFeed(['watch', 'a b'], { FEED_ADDRESS: address });
    expect(code).toBe(1);
    expect(stderr).toContain('(TOPIC_INVALID)\n');
  });

  test('a cursor of another log ends it with 1, and with what --from may be instead, said once', async () => {
    const { grpcAddress: address } = await startService();
    const cursor = '0000000001000000';
    const { code, stderr } = await runFeed(['watch', 't', '--from', cursor], {
      FEED_ADDRESS: address,
    });
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^feed: the cursor is not of this log: [^.]*\(EPOCH_CHANGED\)\. To go on, watch --from earliest, or --from live\n$/,
    );
  });

  test('a server that is too old for several topics is named as such', async () => {
    const { address } = await ScriptedServer.start(
      status(3, 'topic: it is empty', { reason: 'TOPIC_INVALID' }),
    );
    const { code, stderr } = await runFeed(['watch', 'a', 'b.>'], { FEED_ADDRESS: address });
    expect(code).toBe(1);
    expect(stderr).toMatch(/the server is too old .* it has to be updated \(TOPIC_INVALID\)\n$/);
  });
});

describe.skipIf(!HAS_SCRIPT)('on a terminal, feed watch', () => {
  test.each([
    [{}, true],
    [{ NO_COLOR: '1' }, false],
    [{ TERM: 'dumb' }, false],
  ])('with %j has colour: %s', async (env, hasColor) => {
    const { grpcAddress: address } = await startService();
    await store(address, 't', ['text\u001b[31m\u009b']);
    for (const format of [[], ['--json']]) {
      const { stdout } = await startOnTerminal(
        ['watch', 't', '--from', 'earliest', '--until', '1', ...format],
        { FEED_ADDRESS: address, ...env },
      ).ended;
      expect(stdout).toContain(String.raw`text\u001b[31m\u009b`);
      expect(stdout.includes('\u001b[')).toBe(hasColor && format.length === 0);
      expect(stdout).not.toContain('\u009b');
    }
  });

  test('Ctrl-C ends it with a summary', async () => {
    const { grpcAddress: address } = await startService();
    const watch = startOnTerminal(['watch', 't'], { FEED_ADDRESS: address });
    await until(() => watch.stdout.includes('t: live'), 'a watch that is live');
    watch.process.stdin!.write('\u0003');
    const { code, stdout } = await watch.ended;
    expect(stdout).toContain('0 events of t');
    expect(code).toBe(0);
  });
});
