import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { eventually, until } from '../../../test/support/wait.js';
import { runFeed, startFeed, startOnTerminal, startShell } from './run-command.js';
import { freeAddress } from '../../../test/support/ports.js';
import { temporaryDirectory } from '../../../test/support/service.js';
import { Issuer } from '../../../test/support/tokens.js';
import { startService } from './topic.js';

const HAS_SCRIPT = spawnSync('script', ['--version']).status === 0;
if (!HAS_SCRIPT)
  process.stderr.write('Skipped: what needs a terminal, because script is missing.\n');

describe('feed chat', () => {
  test('refuses a directory as the standard input with 66', async () => {
    const { stdout, stderr } = await startShell('feed chat kitchen --from ann < /tmp; echo $?')
      .ended;
    expect(stderr).toBe('feed: the standard input is a directory\n');
    expect(stdout).toBe('66\n');
  });

  test('between two pipes says each line to the other, and leaves at the end of its input', async () => {
    const { grpcAddress: address } = await startService();
    const env = { FEED_ADDRESS: address };
    const ann = startFeed(['chat', 'kitchen', '--from', 'ann'], env, 'pipe');
    await until(() => ann.stderr === 'in kitchen\n', 'ann in the room');
    const bob = startFeed(['chat', 'kitchen', '--from', 'bob', '--json'], env, 'pipe');
    await until(() => bob.stderr === 'in kitchen\n', 'bob in the room');
    ann.process.stdin!.write('hello\n\n');
    await eventually(() =>
      expect(JSON.parse(bob.stdout)).toEqual({ from: 'ann', text: 'hello', room: 'kitchen' }),
    );
    bob.process.stdin!.end('hi\u001b[2J\nbye'); // Both arrive, though bob leaves at once.
    expect(await bob.ended).toMatchObject({
      code: 0,
      stderr: 'in kitchen\nleft kitchen: 2 said, 1 heard\n',
    });
    await eventually(() => expect(ann.stdout).toBe(String.raw`bob: hi\u001b[2J` + '\nbob: bye\n'));
    ann.process.kill('SIGINT');
    expect(await ann.ended).toMatchObject({
      code: 0,
      stderr: 'in kitchen\nleft kitchen: 1 said, 2 heard\n',
    });
  });

  test('goes on saying and hearing after the server was away', async () => {
    const address = await freeAddress();
    const first = await startService({ FEED_GRPC_ADDRESS: address });
    const env = { FEED_ADDRESS: address };
    const ann = startFeed(['chat', 'kitchen', '--from', 'ann'], env, 'pipe');
    await until(() => ann.stderr === 'in kitchen\n', 'ann in the room');
    await first.kill('SIGKILL');
    await until(() => ann.stderr.includes('trying again\n'), 'a word of the break');
    await startService({ FEED_GRPC_ADDRESS: address });
    await until(
      () => ann.stderr.includes('connected again; in kitchen\n'),
      'ann in the room again',
    );
    const bob = startFeed(['chat', 'kitchen', '--from', 'bob'], env, 'pipe');
    await until(() => bob.stderr === 'in kitchen\n', 'bob in the room');
    ann.process.stdin!.write('still here\n');
    await eventually(() => expect(bob.stdout).toBe('ann: still here\n'));
  });

  test('a room that the server refuses, and no name, are errors', async () => {
    const { grpcAddress: address } = await startService();
    const env = { FEED_ADDRESS: address };
    const refused = startFeed(['chat', 'a b', '--from', 'ann'], env, 'pipe'); // Its input stays open.
    const { code, stderr } = await refused.ended;
    expect(stderr).toContain('(TOPIC_INVALID)\n');
    expect(stderr).not.toContain('in a b');
    expect(code).toBe(1);
    const ended = await startShell('echo x | feed chat "a b" --from ann', env).ended;
    expect(ended.stderr).toMatch(/^feed: .*\(TOPIC_INVALID\)\n$/);
    expect(ended.code).toBe(1);
    expect(await runFeed(['chat', 'kitchen'])).toMatchObject({
      code: 64,
      stderr: expect.stringContaining("required option '--from <name>'"),
    });
  });
});

test('a line that the server refuses is an error, also where it is the last one', async () => {
  const { grpcAddress } = await startService({ FEED_MAX_EVENT_BYTES: '1KiB' });
  const env = { FEED_ADDRESS: grpcAddress };
  // It waits for the server for ten seconds.
  await eventually(async () => {
    const large = await startShell('printf "%02000d" 1 | feed chat kitchen --from ann', env).ended;
    expect(large.stderr).toMatch(/^in kitchen\nfeed: .*\(MESSAGE_INVALID\)\n$/);
    expect(large.code).toBe(1);
  });
});

test('a line that is not UTF-8 is refused, and those before it are said', async () => {
  const { grpcAddress } = await startService();
  const env = { FEED_ADDRESS: grpcAddress };
  const bob = startFeed(['chat', 'kitchen', '--from', 'bob'], env, 'pipe');
  await until(() => bob.stderr === 'in kitchen\n', 'bob in the room');
  const ann = startFeed(['chat', 'kitchen', '--from', 'ann'], env, 'pipe'); // Its input stays open.
  ann.process.stdin!.write(Buffer.from('hi\r\n\xe9\nno\n', 'latin1'));
  const { code, stderr } = await ann.ended;
  expect(stderr).toBe('in kitchen\nfeed: line 2 of standard input is not UTF-8 text\n');
  expect(code).toBe(66);
  await eventually(() => expect(bob.stdout).toBe('ann: hi\n'));
});

test('a room that the caller may not chat in is an error of its own', async () => {
  const issuer = await Issuer.create();
  const policy = join(temporaryDirectory(), 'policy.yaml');
  writeFileSync(policy, 'rules:\n  - principals: [ann]\n    verbs: [chat]\n    topics: [lobby]\n');
  const settings = { ...issuer.settings(), FEED_POLICY_FILE: policy };
  const { grpcAddress } = await startService(settings);
  const env = { FEED_ADDRESS: grpcAddress, FEED_TOKEN: await issuer.token({ sub: 'ann' }) };
  const refused = await startShell('echo x | feed chat kitchen --from ann', env).ended;
  expect(refused.stderr).toMatch(/^feed: .*\(TOPIC_FORBIDDEN\)\n$/);
  expect(refused.code).toBe(77);
});

test.skipIf(!HAS_SCRIPT)('on a terminal, what is typed stays below what others say', async () => {
  const { grpcAddress: address } = await startService();
  const env = { FEED_ADDRESS: address };
  const ann = startOnTerminal(['chat', 'kitchen', '--from', 'ann'], env);
  await until(() => ann.stdout.includes('in kitchen'), 'ann in the room');
  const bob = startFeed(['chat', 'kitchen', '--from', 'bob'], env, 'pipe');
  await until(() => bob.stderr === 'in kitchen\n', 'bob in the room');
  ann.process.stdin!.write('hel');
  await until(() => ann.stdout.endsWith('hel'), 'what is typed');
  bob.process.stdin!.write('knock\n');
  await until(() => /knock\r\n.*> hel/s.test(ann.stdout), 'the prompt below what bob says');
  ann.process.stdin!.write('lo\r');
  await eventually(() => expect(bob.stdout).toBe('ann: hello\n'));
  ann.process.stdin!.write('\u0003');
  const { code, stdout } = await ann.ended;
  expect(stdout).toContain('left kitchen: 1 said, 1 heard');
  expect(code).toBe(0);
});
