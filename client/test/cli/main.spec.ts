import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { temporaryDirectory } from '../../../test/support/service.js';
import { until } from '../../../test/support/wait.js';
import { runFeed, startFeed, startShell } from './run-command.js';
import { certificate, tlsProxy } from './servers.js';
import { startService } from './topic.js';

const COMMANDS = [
  'watch',
  'upload',
  'chat',
  'topics',
  'topic',
  'streams',
  'backup',
  'copy',
  'bench',
  'doctor',
  'completion',
];

describe('feed', () => {
  test('lists its commands and exit codes, and each command has help of its own with the shared options', async () => {
    const help = await runFeed(['--help']);
    expect(help.code).toBe(0);
    for (const command of COMMANDS)
      expect(help.stdout).toMatch(new RegExp(`^ {2}${command} `, 'm'));
    expect(help.stdout).toMatch(/^ {2}75 +an upload or a copy stopped/m);
    for (const command of [
      'watch',
      'upload',
      'chat',
      'topics',
      'topic',
      'streams',
      'backup',
      'copy',
    ]) {
      const { code, stdout } = await runFeed(['help', command]);
      expect(code).toBe(0);
      expect(stdout).toContain('Examples:\n');
      expect(stdout).toContain('env: FEED_ADDRESS');
    }
  });

  test('without a command says how it is used, with exit code 64', async () => {
    const { code, stdout, stderr } = await runFeed([]);
    expect({ code, stdout }).toEqual({ code: 64, stdout: '' });
    expect(stderr).toContain('Usage: feed');
  });

  test.each(['--help', 'help watch', '--version', 'completion bash'])(
    '%s ends quietly with 0 when its reader goes away, and with 66 on a full disk',
    async (args) => {
      const left = startShell(`{ sleep 0.5; feed ${args}; echo "code $?" >&2; } | true`);
      expect((await left.ended).stderr).toBe('code 0\n');
      const full = startShell(`feed ${args} > /dev/full; echo "code $?"`);
      expect(await full.ended).toMatchObject({
        stdout: 'code 66\n',
        stderr: "feed: standard output can't be written to: ENOSPC (no space left on device)\n",
      });
    },
  );

  test('the README has all exit codes of the help', async () => {
    const { stdout } = await runFeed(['--help']);
    const codes = [...stdout.matchAll(/^ {2}(\d+) {2,}/gm)].map(([, code]) => code);
    const readme = readFileSync(new URL('../../COMMAND.md', import.meta.url), 'utf8');
    expect(codes.length).toBeGreaterThan(5);
    for (const code of codes) expect(readme).toMatch(new RegExp(`^\\| ${code}`, 'm'));
  });

  test('takes TLS files from the environment and the command line, which may turn TLS off', async () => {
    const { grpcAddress } = await startService();
    const address = await tlsProxy(grpcAddress, { asksForCertificate: true });
    const env = {
      FEED_ADDRESS: address,
      FEED_CLIENT_TLS_CA: certificate('ca.pem'),
      FEED_CLIENT_TLS_CERT: certificate('client.pem'),
      FEED_CLIENT_TLS_KEY: certificate('client.key'),
    };
    const given = startFeed(['watch', 't'], env);
    await until(() => given.stderr.includes('t: live\n'), 'a watch over TLS');
    const flags = ['--ca', env.FEED_CLIENT_TLS_CA, '--cert', env.FEED_CLIENT_TLS_CERT];
    const named = startFeed(
      ['watch', 't', ...flags, '--key', env.FEED_CLIENT_TLS_KEY, '--address', address],
      {},
    );
    await until(() => named.stderr.includes('t: live\n'), 'a watch over TLS');
    const plain = startFeed(['--no-tls', 'watch', 't', '--address', grpcAddress], env);
    await until(() => plain.stderr.includes('t: live\n'), 'a watch without TLS');
  });

  test('takes an empty variable for one that is not set', async () => {
    const [from, to] = await Promise.all([startService(), startService()]);
    const names = ['TOKEN', 'TOKEN_FILE', 'CLIENT_TLS_CA', 'CLIENT_TLS_CERT', 'CLIENT_TLS_KEY'];
    const empty = Object.fromEntries(
      ['FEED_', 'FEED_TO_'].flatMap((prefix) => names.map((name) => [`${prefix}${name}`, ''])),
    );
    const checkpoint = join(temporaryDirectory(), 'copy.json');
    const args = ['copy', from.grpcAddress, to.grpcAddress, '--checkpoint', checkpoint];
    const copy = await runFeed(args, { ...empty, FEED_ADDRESS: '' });
    expect(copy.code, copy.stderr).toBe(0);
    // The default address, where nothing may listen.
    const topics = await runFeed(['topics'], { FEED_ADDRESS: '' });
    expect(topics.stderr).not.toContain('no address');
  });

  test.each([
    [{ FEED_CLIENT_TLS_CA: certificate('server.key') }, 'is no PEM certificate'],
    [
      {
        FEED_CLIENT_TLS_CERT: certificate('client.pem'),
        FEED_CLIENT_TLS_KEY: certificate('server.key'),
      },
      "can't be used with the certificate",
    ],
  ])('TLS files that can not be used (%#) end it with 78 and a sentence', async (env, text) => {
    const { code, stderr } = await runFeed(['watch', 't'], env);
    expect(stderr).toContain(text);
    expect(stderr.split('\n').length).toBe(2);
    expect(code).toBe(78);
  });
});

describe('feed completion', () => {
  test('bash completes commands, options and words', async () => {
    const complete = (...words: string[]): string =>
      `COMP_WORDS=(feed ${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length}; _feed; echo "\${COMPREPLY[@]}"`;
    const { stdout, stderr } = await startShell(
      [
        'eval "$(feed completion bash)"',
        complete(''),
        complete('wa'),
        complete('--address', 'x', 'watch', 't', '--che'),
        complete('upload', 't', '--to'),
        complete('completion', 'z'),
      ].join('\n'),
    ).ended;
    expect(stderr).toBe('');
    const [all, ...rest] = stdout.trimEnd().split('\n');
    expect(all.split(' ')).toEqual([...COMMANDS, 'help']);
    expect(rest).toEqual(['watch', '--checkpoint', '--token --token-file', 'zsh']);
  });

  test.each(['zsh', 'fish'])(
    'the script of %s has each command, and the shell reads it',
    async (shell) => {
      const { code, stdout } = await runFeed(['completion', shell]);
      expect(code).toBe(0);
      for (const command of COMMANDS) expect(stdout).toContain(command);
      const { error, status, stderr } = spawnSync(shell, ['-n'], {
        input: stdout,
        encoding: 'utf8',
      });
      if (error) process.stderr.write(`Not read by ${shell}, which is missing.\n`);
      else expect(status, stderr).toBe(0);
    },
  );

  test('another shell is refused with those that there are', async () => {
    const { code, stderr } = await runFeed(['completion', 'tcsh']);
    expect(code).toBe(64);
    expect(stderr).toContain('bash, zsh, fish');
  });
});
