import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { freeAddress } from '../../../test/support/ports.js';
import { type ServiceProcess, temporaryDirectory } from '../../../test/support/service.js';
import { eventually, until, upToThrice, within } from '../../../test/support/wait.js';
import { connect } from '../../src/index.js';
import { ScriptedServer, status } from '../scripted-server.js';
import { bodies, numbers } from '../service.js';
import {
  type RunningCommand,
  runFeed,
  startFeed,
  startOnTerminal,
  startShell,
  startShellOnTerminal,
} from './run-command.js';
import { held, startService, store } from './topic.js';

const HAS_SCRIPT = spawnSync('script', ['--version']).status === 0;
if (!HAS_SCRIPT)
  process.stderr.write('Skipped: what needs a terminal, because script is missing.\n');

function fileWith(lines: readonly string[]): string {
  const path = join(temporaryDirectory(), 'events.txt');
  writeFileSync(path, lines.map((line) => `${line}\n`).join(''));
  return path;
}

interface State {
  readonly acknowledged: { readonly line: number };
  readonly read: { readonly line: number };
  readonly sent?: unknown;
}

function stateOf(path: string): State | undefined {
  const state = `${path}.feed-resume`;
  return existsSync(state) ? (JSON.parse(readFileSync(state, 'utf8')) as State) : undefined;
}

/**
 * Kills an upload with --resume while its server stands still: all lines of the file that were not acknowledged before are in doubt.
 *
 * @param lines how many lines the file has
 */
async function killInDoubt(
  service: ServiceProcess,
  topic: string,
  path: string,
  lines: number,
  options: readonly string[] = [],
): Promise<void> {
  service.process.kill('SIGSTOP');
  const killed = startFeed(['upload', topic, path, '--resume', ...options], {
    FEED_ADDRESS: service.grpcAddress,
  });
  await until(() => stateOf(path)?.read.line === lines, 'lines that are about to be sent');
  killed.process.kill('SIGKILL');
  await killed.ended;
  service.process.kill('SIGCONT');
}

describe('feed upload', () => {
  test('stores the lines of files in order, and sums it up on standard error', async () => {
    const { grpcAddress: address } = await startService();
    const first = fileWith(['one', '', 'three\r']);
    const second = join(temporaryDirectory(), 'no-line-break');
    writeFileSync(second, 'four\nfive, ünïcödé');
    const { code, stdout, stderr } = await runFeed(['upload', 't', first, second], {
      FEED_ADDRESS: address,
    });
    expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
    expect(stderr).toMatch(/^5 lines stored in t; [\d.]+ s; \d+\/s; last cursor \S{16}\n$/m);
    expect(bodies(await held(address, 't'))).toEqual(['one', '', 'three', 'four', 'five, ünïcödé']);
  });

  test('reads standard input, and stores each line as it comes', async () => {
    const { grpcAddress: address } = await startService();
    const upload = startFeed(['upload', 't'], { FEED_ADDRESS: address }, 'pipe');
    upload.process.stdin!.write('one\ntw');
    await eventually(async () => expect(bodies(await held(address, 't'))).toContain('one'));
    upload.process.stdin!.end('o\n');
    expect((await upload.ended).code).toBe(0);
    const stored = bodies(await held(address, 't')).filter((body) => body !== '(end)');
    expect(stored).toEqual(['one', 'two']);
  });

  test('reads a pipe that is named as a file', async () => {
    const { grpcAddress: address } = await startService();
    const { stderr } = await startShell('feed upload t <(seq 0 9999)', { FEED_ADDRESS: address })
      .ended;
    expect(stderr).toContain('10,000 lines stored in t;');
    expect(bodies(await held(address, 't'))).toEqual(numbers(0, 10_000));
  });

  test('a copy of a topic has the ids, bodies, times and attributes, and a second one is recognized', async () => {
    const { grpcAddress: address } = await startService();
    await store(address, 'a', numbers(0, 999));
    await startShell(
      `echo '{"attributes":{"k":"é","__proto__":"x"}}' | feed upload a --format ndjson`,
      {
        FEED_ADDRESS: address,
      },
    ).ended;
    const copy = 'feed watch a --json --from earliest --until 1000 | feed upload b --format ndjson';
    const env = { FEED_ADDRESS: address };
    expect((await startShell(copy, env).ended).stderr).toContain('1,000 lines stored in b;');
    expect((await startShell(copy, env).ended).stderr).toContain(
      '; 1,000 of them were there before;',
    );
    const [a, b] = [await held(address, 'a'), await held(address, 'b')];
    const own = ({ id, body, at, attributes }: (typeof a)[number]) => ({
      id,
      body,
      at,
      attributes,
    });
    expect(b.map(own)).toEqual(a.map(own));
    expect(Object.entries(b.at(-1)!.attributes)).toEqual([
      ['k', 'é'],
      ['__proto__', 'x'],
    ]);
  });

  test.each([
    ['{"body":"x"', 'line 2 of standard input is no JSON:'],
    ['{"text":"x"}', 'line 2 of standard input has the unknown field "text":'],
    ['{"body":1}', 'line 2 of standard input has a field "body" that is no text:'],
    ['{"body":"\\ud800"}', 'line 2 of standard input has a field "body" that is no whole text:'],
    ['{"id":"a\\udc00"}', 'line 2 of standard input has a field "id" that is no whole text:'],
    ['{"attributes":{"k":"\\ud800"}}', 'has a field "attributes" that is no object of texts:'],
    ['{"attributes":{"k":1}}', 'has a field "attributes" that is no object of texts:'],
    ['{"at":"soon"}', 'line 2 of standard input has a field "at" that is no time:'],
  ])('the line %s of NDJSON ends it with 66, after what was before', async (line, message) => {
    const { grpcAddress: address } = await startService();
    const upload = startFeed(
      ['upload', 't', '--format', 'ndjson'],
      { FEED_ADDRESS: address },
      'pipe',
    );
    upload.process.stdin!.write(`{"body":"good"}\n${line}\n`); // It stays open: the command must not wait for its end.
    const { code, stderr } = await upload.ended;
    expect(stderr).toContain(message);
    expect(code).toBe(66);
    expect(bodies(await held(address, 't'))).toEqual(['good']);
  });

  test('a line that is too large for the server is named, and so is one that is not UTF-8', async () => {
    const { grpcAddress: address } = await startService({ FEED_MAX_EVENT_BYTES: '1KiB' });
    const large = fileWith(['small', 'x'.repeat(2_000), 'after']);
    const env = { FEED_ADDRESS: address };
    const refused = await runFeed(['upload', 't', large], env);
    expect(refused.stderr).toContain(`line 2 of ${large}: `);
    expect(refused.stderr).toContain('(EVENT_INVALID)');
    expect(refused.code).toBe(66);
    expect(bodies(await held(address, 't'))).toEqual(['small']);
    const binary = join(temporaryDirectory(), 'binary');
    writeFileSync(binary, Buffer.from([0x61, 0x0a, 0xff, 0x0a]));
    const unread = await runFeed(['upload', 't', binary], env);
    expect(unread.stderr).toContain(`line 2 of ${binary} is not UTF-8 text`);
    expect(unread.code).toBe(66);
  });

  test('the lines before one that is not UTF-8 are stored, however many they are', async () => {
    const { grpcAddress: address } = await startService();
    const path = fileWith(numbers(0, 100_000));
    appendFileSync(path, Buffer.from([0xff, 0x0a, 0x61]));
    const { code, stderr } = await runFeed(['upload', 't', path], { FEED_ADDRESS: address });
    expect(code).toBe(66);
    expect(stderr).toMatch(/^100,000 lines stored in t; /m);
    expect(stderr).toContain(`line 100001 of ${path} is not UTF-8 text`);
    expect((await held(address, 't')).length).toBe(100_000);
    const few = 'printf "ok\\n\\xff\\nno\\n" | feed upload u';
    const { stderr: ofFew } = await startShell(few, { FEED_ADDRESS: address }).ended;
    expect(ofFew).toMatch(/^1 line stored in u; /m);
    expect(bodies(await held(address, 'u'))).toEqual(['ok']);
  });

  test('--follow stores what is appended, through a rename and a truncation, until Ctrl-C', async () => {
    const { grpcAddress: address } = await startService();
    const path = fileWith(['1']);
    const upload = startFeed(['upload', 't', path, '--follow'], { FEED_ADDRESS: address });
    const holds = (expected: string[]): Promise<void> =>
      eventually(async () => {
        const stored = bodies(await held(address, 't')).filter((body) => body !== '(end)');
        expect(stored).toEqual(expected);
      });
    await holds(['1']);
    appendFileSync(path, '2\n3');
    await holds(['1', '2']);
    appendFileSync(path, ' and its rest\n');
    await holds(['1', '2', '3 and its rest']);
    renameSync(path, `${path}.1`);
    appendFileSync(`${path}.1`, 'late\n');
    writeFileSync(path, 'new\n');
    await holds(['1', '2', '3 and its rest', 'late', 'new']);
    expect(upload.stderr).toContain(`${path} was replaced: `);
    writeFileSync(path, '');
    await until(
      () => upload.stderr.includes(`${path} was truncated: `),
      'a word of the truncation',
    );
    appendFileSync(path, 'again\n');
    await holds(['1', '2', '3 and its rest', 'late', 'new', 'again']);
    // The call of the last line ends with its acknowledgement. After the signal, that would have only 3 s.
    const feed = connect(address);
    const isAcknowledged = async (): Promise<boolean> => {
      for await (const { method } of feed.admin.listStreams())
        if (method.endsWith('/UploadEvents')) return false;
      return true;
    };
    await until(isAcknowledged, 'the acknowledgement of the last line');
    feed.close();
    upload.process.kill('SIGINT');
    const { code, stderr } = await upload.ended;
    expect(code).toBe(0);
    expect(stderr).toContain('interrupted: 6 lines stored in t;');
  });

  test.each([[[]], [['--resume']]])(
    '--follow %j begins anew with a file that was rewritten, though it is longer than before',
    async (options) => {
      const { grpcAddress: address } = await startService();
      const path = fileWith(['x1', 'x2', 'x3']);
      const args = ['upload', 't', path, '--follow', ...options];
      const upload = startFeed(args, { FEED_ADDRESS: address });
      const holds = (expected: string[]): Promise<void> =>
        eventually(async () => {
          const stored = bodies(await held(address, 't')).filter((body) => body !== '(end)');
          expect(stored).toEqual(expected);
        });
      await holds(['x1', 'x2', 'x3']);
      writeFileSync(path, 'y1-longer-than-before\ny2-longer\n');
      const both = ['x1', 'x2', 'x3', 'y1-longer-than-before', 'y2-longer'];
      await holds(both);
      expect(upload.stderr).toMatch(/events\.txt was (rewritten|truncated): /);
      appendFileSync(path, 'y3\n');
      await holds([...both, 'y3']);
    },
  );

  test('--resume goes on after kills, and each line is stored once', async () => {
    const { grpcAddress: address } = await startService();
    // 36 MB: the hash of what was sent begins anew, after some 16 MB.
    const lines = numbers(0, 600_000).map((number) => number.padStart(60, '0'));
    const path = fileWith(lines);
    const args = ['upload', 't', path, '--resume'];
    let kills = 0;
    for (let seen = 0; kills < 3;) {
      const upload = startFeed(args, { FEED_ADDRESS: address });
      const acknowledged = (): number => stateOf(path)?.acknowledged.line ?? 0;
      await until(() => acknowledged() > seen, 'lines that are acknowledged', 30_000, 1);
      upload.process.kill('SIGKILL');
      await upload.ended;
      seen = acknowledged();
      kills++;
      if (seen === lines.length) break; // This process stood still until all was stored.
    }
    const last = await runFeed(args, { FEED_ADDRESS: address });
    expect(last.code, last.stderr).toBe(0);
    expect(last.stderr).toMatch(/going on after line [\d,]+, which was acknowledged before\n/);
    const stored = bodies(await held(address, 't'));
    expect(stored.length).toBe(lines.length);
    expect(stored.findIndex((body, i) => body !== lines[i])).toBe(-1);
    // What is appended later is all that another run sends.
    appendFileSync(path, 'more\n');
    const more = await runFeed(args, { FEED_ADDRESS: address });
    expect(more.stderr).toContain('\n1 line stored in t;');
  });

  test('--resume past the deduplication window says what may be stored twice, and --doubtful decides', async () => {
    const service = await startService({ FEED_DEDUP_WINDOW: '1s' });
    const env = { FEED_ADDRESS: service.grpcAddress };
    const path = fileWith(numbers(0, 10));
    const args = ['upload', 't', path, '--resume'];
    await killInDoubt(service, 't', path, 10);
    await sleep(1_000); // the window
    const undecided = await runFeed(args, env);
    expect(undecided.code, undecided.stderr).toBe(75);
    expect(undecided.stderr).toContain(`${path}: lines 1 to 10 were sent at `);
    expect(undecided.stderr).toContain('--doubtful again');
    expect(stateOf(path)).toMatchObject({ acknowledged: { line: 0 }, read: { line: 10 } });
    appendFileSync(path, '10\n');
    const before = bodies(await held(service.grpcAddress, 't'));
    const skipped = await runFeed([...args, '--doubtful', 'skip'], env);
    expect(skipped.code, skipped.stderr).toBe(0);
    expect(skipped.stderr).toMatch(/; they are skipped\n1 line stored in t; [\d.]+ s; /);
    expect(bodies(await held(service.grpcAddress, 't')).slice(before.length)).toEqual([
      '(end)',
      '10',
    ]);
  });

  test('--resume past the window stores the lines again where it is told to', async () => {
    const service = await startService({ FEED_DEDUP_WINDOW: '0s' });
    const env = { FEED_ADDRESS: service.grpcAddress };
    const path = fileWith(numbers(0, 10));
    const args = ['upload', 't', path, '--resume', '--doubtful', 'again'];
    await killInDoubt(service, 't', path, 10);
    const again = await runFeed(args, env);
    expect(again.code, again.stderr).toBe(0);
    expect(again.stderr).toMatch(/; they are stored again\n10 lines stored in t; [\d.]+ s; /);
    expect(bodies(await held(service.grpcAddress, 't')).slice(-10)).toEqual(numbers(0, 10));
  });

  test('--resume refuses a file that is not the one it knows, another topic and another server', async () => {
    const { grpcAddress: address } = await startService();
    const path = fileWith(['a', 'b']);
    const run = (topic: string, to = address) =>
      runFeed(['upload', topic, path, '--resume'], { FEED_ADDRESS: to });
    expect((await run('t')).code).toBe(0);
    expect(await run('u')).toMatchObject({
      code: 64,
      stderr: expect.stringContaining('topic t, not u'),
    });
    expect(await run('t', '127.0.0.1:1')).toMatchObject({
      code: 64,
      stderr: expect.stringContaining('not 127.0.0.1:1'),
    });
    writeFileSync(path, 'A\nb\nc\n');
    expect(await run('t')).toMatchObject({
      code: 66,
      stderr: expect.stringContaining('it was replaced, cut or changed'),
    });
    expect(bodies(await held(address, 't'))).toEqual(['a', 'b']);
  });

  test.each([
    ['nothing', 0],
    ['five lines', 5],
  ])(
    '--resume refuses a file whose lines in doubt have changed since, after %s was acknowledged',
    async (_, acknowledged) => {
      const service = await startService();
      const env = { FEED_ADDRESS: service.grpcAddress };
      const lines = numbers(100, 110);
      const path = fileWith(lines.slice(0, acknowledged));
      const args = ['upload', 't', path, '--resume'];
      if (acknowledged > 0) expect((await runFeed(args, env)).code).toBe(0);
      appendFileSync(
        path,
        lines
          .slice(acknowledged)
          .map((line) => `${line}\n`)
          .join(''),
      );
      await killInDoubt(service, 't', path, 10);
      const saved = readFileSync(`${path}.feed-resume`, 'utf8');
      const sent = readFileSync(path, 'utf8');
      for (const changed of [
        sent.replace('107', 'new'),
        sent.replace('109\n', 'new\n'),
        sent.replace('109\n', ''),
        `${sent.replace('106', 'new')}more\n`,
      ]) {
        writeFileSync(path, changed);
        expect(await runFeed(args, env)).toMatchObject({
          code: 66,
          stderr: expect.stringContaining('it was replaced, cut or changed'),
        });
        expect(readFileSync(`${path}.feed-resume`, 'utf8')).toBe(saved);
      }
      // One that has only grown goes on, and none of its lines is stored twice.
      writeFileSync(path, `${sent}110\n`);
      const grown = await runFeed(args, env);
      expect(grown.code, grown.stderr).toBe(0);
      expect(bodies(await held(service.grpcAddress, 't'))).toEqual(numbers(100, 111));
    },
  );

  test('--resume goes on with what an earlier version has saved, which had no hash of what was sent', async () => {
    const service = await startService();
    const path = fileWith(numbers(0, 10));
    await killInDoubt(service, 't', path, 10);
    const { sent, ...earlier } = stateOf(path)!;
    expect(sent).toBeDefined();
    writeFileSync(`${path}.feed-resume`, JSON.stringify(earlier));
    const args = ['upload', 't', path, '--resume'];
    const { code, stderr } = await runFeed(args, { FEED_ADDRESS: service.grpcAddress });
    expect(code, stderr).toBe(0);
    expect(bodies(await held(service.grpcAddress, 't'))).toEqual(numbers(0, 10));
  });

  test.each(['after its error', 'after a kill and then its error'])(
    '--resume goes on after a line that was no event has been mended, %s',
    async (when) => {
      const service = await startService();
      const path = fileWith(['{"body":"0"}', '{"body":"1"}', '{"text":"2"}', '{"body":"3"}']);
      const options = ['--format', 'ndjson'];
      if (when !== 'after its error') await killInDoubt(service, 't', path, 4, options);
      const run = () =>
        runFeed(['upload', 't', path, '--resume', ...options], {
          FEED_ADDRESS: service.grpcAddress,
        });
      expect((await run()).code).toBe(66);
      writeFileSync(path, readFileSync(path, 'utf8').replace('text', 'body'));
      const mended = await run();
      expect(mended.code, mended.stderr).toBe(0);
      expect(bodies(await held(service.grpcAddress, 't'))).toEqual(numbers(0, 4));
    },
  );

  test('Ctrl-C ends it once what was sent is acknowledged, with a summary and 130', async () => {
    const { grpcAddress: address } = await startService();
    let uploads = 0;
    const interrupted = async () => {
      const topic = `t${++uploads}`;
      const upload = startFeed(['upload', topic], { FEED_ADDRESS: address }, 'pipe');
      upload.process.stdin!.write('one\ntwo\nnot a whole line');
      await eventually(async () => expect(bodies(await held(address, topic))).toContain('two'));
      upload.process.kill('SIGINT');
      return upload.ended;
    };
    const summary = /^interrupted: 2 lines stored in t\d; /m;
    // The acknowledgement has 3 s, for which neither the command nor the service may stand still.
    const { code, stderr } = await upToThrice(interrupted, (ending) => summary.test(ending.stderr));
    expect(code).toBe(130);
    expect(stderr).toMatch(summary);
  });

  test('a signal ends it while it reads a named pipe whose writer writes nothing', async () => {
    const { grpcAddress: address } = await startService();
    const path = join(temporaryDirectory(), 'pipe');
    spawnSync('mkfifo', [path]);
    const upload = startFeed(['upload', 't', path], { FEED_ADDRESS: address });
    const writer = await open(path, 'r+'); // With 'w', it would wait for the command.
    onTestFinished(() => writer.close());
    await writer.write('one\nnot a whole line');
    await eventually(async () => expect(bodies(await held(address, 't'))).toContain('one'));
    upload.process.kill('SIGTERM');
    expect((await within(upload.ended, 'the end')).code).toBe(143);
  });

  test('a signal ends it while it waits for the first writer of a named pipe, for which it waits otherwise', async () => {
    const { grpcAddress: address } = await startService();
    const path = join(temporaryDirectory(), 'pipe');
    spawnSync('mkfifo', [path]);
    const env = { FEED_ADDRESS: address };
    const stopped = startFeed(['upload', 't', path], env);
    const waiting = startFeed(['upload', 't', path], env);
    for (const upload of [stopped, waiting])
      await until(() => upload.stderr.includes('0 lines, '), 'a line of its progress');
    stopped.process.kill('SIGTERM');
    expect(await within(stopped.ended, 'the end')).toMatchObject({
      code: 143,
      stderr: expect.stringContaining('interrupted: 0 lines stored in t;'),
    });
    writeFileSync(path, 'one\ntwo\n');
    expect((await waiting.ended).code).toBe(0);
    expect(bodies(await held(address, 't'))).toEqual(['one', 'two']);
  });

  test('a directory as the standard input is refused with 66', async () => {
    const { stdout, stderr } = await startShell('feed upload t < /tmp; echo $?').ended;
    expect(stderr).toBe('feed: the standard input is a directory\n');
    expect(stdout).toBe('66\n');
  });

  test('ends at once when the server refuses it', async () => {
    const server = await ScriptedServer.start(status(16, 'who are you?'));
    const env = { FEED_ADDRESS: server.address };
    const path = fileWith(['one']);
    const refused = async () => {
      const start = performance.now();
      const { code, stderr } = await runFeed(['upload', 't', path], env);
      return { code, stderr, took: performance.now() - start };
    };
    // The client waits up to 10 s for the headers of an answer. The command takes a part of that to start, more on a busy machine.
    const isSoon = ({ took }: { readonly took: number }): boolean => took < 10_000;
    const found = await upToThrice(refused, isSoon);
    expect(found.code).not.toBe(0);
    expect(found.stderr).toContain('who are you?');
    expect(isSoon(found)).toBe(true);
  });

  test('waits for a server that is away, and says so; Ctrl-C does not wait for it', async () => {
    const address = await freeAddress();
    const path = fileWith(['a']);
    const env = { FEED_ADDRESS: address };
    const stopped = startFeed(['upload', 't', path], env);
    const waiting = startFeed(['upload', 't', path], env);
    for (const upload of [stopped, waiting])
      await until(() => upload.stderr.includes('ECONNREFUSED; trying again\n'), 'a word of it');
    stopped.process.kill('SIGINT');
    expect(await stopped.ended).toMatchObject({
      code: 130,
      stderr: expect.stringMatching(/feed: ended before all was acknowledged\n$/),
    });
    await startService({ FEED_GRPC_ADDRESS: address });
    expect((await waiting.ended).code).toBe(0);
    expect(bodies(await held(address, 't'))).toEqual(['a']);
  });

  test.each([
    [['upload', 't', 'a', 'b', '--follow'], 64, '--follow needs one file'],
    [['upload', 't', '--resume'], 64, '--resume needs a file'],
    [['upload', 't', 'a', 'a'], 64, 'a file is named twice'],
    [['upload', 't', '--format', 'xml'], 64, 'Allowed choices are lines, ndjson'],
    [
      ['upload', 'orders.*'],
      64,
      '"orders.*" is no topic: it has white space, a control character,',
    ],
    [['upload', 'a..b', '/no/such/file'], 64, '"a..b" is no topic: it has an empty token'],
    [['upload', ''], 64, '"" is no topic: it is empty'],
    [['upload', 'é'.repeat(101)], 64, 'is no topic: it has 202 bytes, over the limit of 200'],
    [['upload', 't', '/no/such/file'], 66, "/no/such/file can't be read: ENOENT"],
    [['upload', 't', '/dev/null', '--follow'], 64, 'need a file, which /dev/null is not'],
    [
      ['upload', 't', '/proc/version', '--resume'],
      66,
      "can't be saved in /proc/version.feed-resume: ENOENT (no such file or directory)",
    ],
    [['upload', 't', '/tmp'], 66, '/tmp is a directory'],
  ] as const)('%j ends with %i', async (args, expected, text) => {
    const { code, stderr } = await runFeed(args);
    expect(stderr).toContain(text);
    expect(code).toBe(expected);
  });
});

describe.skipIf(!HAS_SCRIPT)('on a terminal, feed upload', () => {
  test('draws a bar, and removes it at the end', async () => {
    const service = await startService();
    const path = fileWith(numbers(0, 10));
    service.process.kill('SIGSTOP'); // Its answer comes once the bar has been drawn.
    const upload = startOnTerminal(['upload', 't', path], { FEED_ADDRESS: service.grpcAddress });
    await until(() => /━+\S* 0% 10 lines, 0 acknowledged/.test(upload.stdout), 'a bar');
    service.process.kill('SIGCONT');
    const { code, stdout } = await upload.ended;
    expect(code).toBe(0);
    expect(stdout).toContain('\r\u001b[K10 lines stored in t;');
  });

  test('reads the terminal by its name, until Ctrl-C', async () => {
    const { grpcAddress: address } = await startService();
    const upload = startOnTerminal(['upload', 't', '/dev/tty'], { FEED_ADDRESS: address });
    upload.process.stdin!.write('one\r');
    await eventually(async () => expect(bodies(await held(address, 't'))).toContain('one'));
    upload.process.stdin!.write('\u0003');
    const { code, stdout } = await within(upload.ended, 'the end');
    expect(code).toBe(130);
    expect(stdout).toContain('interrupted: ');
  });

  test('asks about lines in doubt', async () => {
    const service = await startService({ FEED_DEDUP_WINDOW: '0s' });
    const env = { FEED_ADDRESS: service.grpcAddress };
    const path = fileWith(numbers(0, 10));
    const args = ['upload', 't', path, '--resume'];
    await killInDoubt(service, 't', path, 10);
    const asked = startOnTerminal(args, env);
    await until(() => asked.stdout.includes('[a/s/q]'), 'a question');
    asked.process.stdin!.write('a\r');
    const { code, stdout } = await asked.ended;
    expect(code).toBe(0);
    expect(stdout).toContain('10 lines stored in t;');
    expect(bodies(await held(service.grpcAddress, 't')).slice(-10)).toEqual(numbers(0, 10));
  });

  const type =
    (keys: string) =>
    ({ process }: RunningCommand): void =>
      void process.stdin!.write(keys);
  test.each<
    readonly [string, (terminal: RunningCommand, pid: number) => void, number, string | undefined]
  >([
    ['q', type('q\r'), 75, 'the upload was left as it is'],
    ['Ctrl-D', type('\u0004'), 75, 'no answer: the upload was left as it is'],
    ['Ctrl-C', type('\u0003'), 130, 'interrupted: the upload was left as it is'],
    [
      'SIGTERM',
      (_, pid) => void process.kill(pid, 'SIGTERM'),
      143,
      'interrupted: the upload was left as it is',
    ],
    // Nobody can read what it says then. Node 20 aborts at the end of any process whose terminal is gone, with 134.
    ['its end', ({ process }) => void process.kill('SIGKILL'), 129, undefined],
  ])('asks about lines in doubt, and %s leaves them so', async (_, end, expected, text) => {
    const service = await startService({ FEED_DEDUP_WINDOW: '0s' });
    const path = fileWith(numbers(0, 10));
    await killInDoubt(service, 't', path, 10);
    const saved = stateOf(path);
    const [pid, code] = ['pid', 'code'].map((name) => join(temporaryDirectory(), name));
    const written = (file: string): string => (existsSync(file) ? readFileSync(file, 'utf8') : '');
    // The shell outlives what ends the command, and then writes its exit code.
    const command =
      'trap : INT HUP; sh -c \'echo $$ >"$PID_FILE"; exec "$NODE" "$PROGRAM" upload t "$FILE" --resume\'; echo $? >"$CODE_FILE"';
    const asked = startShellOnTerminal(command, {
      FEED_ADDRESS: service.grpcAddress,
      FILE: path,
      PID_FILE: pid,
      CODE_FILE: code,
    });
    await until(() => asked.stdout.includes('[a/s/q]'), 'a question');
    end(asked, Number(written(pid)));
    await until(() => written(code).endsWith('\n'), 'its end');
    expect(Number(written(code)), asked.stdout).toBe(expected);
    if (text !== undefined) {
      await asked.ended;
      expect(asked.stdout).toContain(text);
    }
    expect(stateOf(path)).toEqual(saved);
  });
});
