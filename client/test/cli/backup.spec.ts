import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { temporaryDirectory } from '../../../test/support/service.js';
import { BackupPart } from '../../src/gen/feed/v1/admin.js';
import { frame } from '../../src/grpc/frames.js';
import { answerThen, ScriptedServer, status, watchAnswer } from '../scripted-server.js';
import { runFeed } from './run-command.js';
import { startService, store } from './topic.js';

test('feed backup saves a backup, and replaces the one before', async () => {
  const { grpcAddress: address } = await startService({ FEED_DURABILITY: 'none' });
  const env = { FEED_ADDRESS: address };
  await store(address, 'orders', ['a', 'b', 'c']);
  const directory = temporaryDirectory();
  const file = join(directory, 'feed.backup');
  writeFileSync(file, 'the one before');
  const { code, stdout, stderr } = await runFeed(['backup', file], env);
  expect(stderr).toMatch(new RegExp(`^${file}: [\\d,]+ bytes, in [\\d.]+ s\\n$`, 'm'));
  expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
  const bytes = readFileSync(file);
  expect(bytes.subarray(0, 14).toString()).toBe('feed backup 1\n');
  expect(stderr).toContain(`${bytes.length.toLocaleString('en-US')} bytes`);
  expect(readdirSync(directory)).toEqual(['feed.backup']);
});

test('feed backup leaves no file where it fails', async () => {
  const { grpcAddress: address } = await startService({ FEED_ENGINE: 'memory' });
  const directory = temporaryDirectory();
  const file = join(directory, 'feed.backup');
  const refused = await runFeed(['backup', file], { FEED_ADDRESS: address });
  expect(refused).toMatchObject({ code: 1, stdout: '' });
  expect(refused.stderr).toContain('(BACKUP_UNSUPPORTED)\n');
  expect(readdirSync(directory)).toEqual([]);

  const nowhere = join(directory, 'missing', 'feed.backup');
  const unwritable = await runFeed(['backup', nowhere], { FEED_ADDRESS: address });
  expect(unwritable.code).toBe(66);
  expect(unwritable.stderr).toContain(`${nowhere}.part can't be written: ENOENT`);
});

test('feed backup refuses a name that is taken by no file, before the server is asked', async () => {
  const server = await ScriptedServer.start(status(0));
  const directory = temporaryDirectory();
  const file = join(directory, 'feed.backup');
  mkdirSync(file);
  const pipe = join(directory, 'pipe');
  spawnSync('mkfifo', [pipe]);
  for (const [name, what] of [
    [file, 'a directory'],
    [pipe, 'no regular file'],
  ]) {
    const refused = await runFeed(['backup', name], { FEED_ADDRESS: server.address });
    expect(refused).toMatchObject({ code: 66, stderr: `feed: ${name} is ${what}\n` });
  }
  expect(server.calls).toEqual([]);
  expect(readdirSync(directory).toSorted()).toEqual(['feed.backup', 'pipe']);
});

test('feed backup leaves no part where the name is taken by a directory meanwhile', async () => {
  const directory = temporaryDirectory();
  const file = join(directory, 'feed.backup');
  const part = BackupPart.encode({ data: Buffer.from('a part'), totalBytes: 6 }).finish();
  const server = await ScriptedServer.start((stream, headers) => {
    mkdirSync(file);
    const answer = watchAnswer({ head: 1, earliest: 1 }, frame(part));
    answerThen(answer, status(0))(stream, headers);
  });
  const { code, stderr } = await runFeed(['backup', file], { FEED_ADDRESS: server.address });
  expect(code).toBe(66);
  expect(stderr).toContain(`${file} can't be written: EISDIR`);
  expect(readdirSync(directory)).toEqual(['feed.backup']);
});

test('feed backup leaves no file where fewer bytes come than the server says, though the call ends with OK', async () => {
  const part = BackupPart.encode({ data: Buffer.from('a part'), totalBytes: 10 }).finish();
  const answer = watchAnswer({ head: 1, earliest: 1 }, frame(part));
  const server = await ScriptedServer.start(answerThen(answer, status(0)));
  const directory = temporaryDirectory();
  const file = join(directory, 'feed.backup');
  const cut = await runFeed(['backup', file], { FEED_ADDRESS: server.address });
  expect(cut.code).not.toBe(0);
  expect(cut.stderr).toContain('6 of 10 bytes');
  expect(readdirSync(directory)).toEqual([]);
});
