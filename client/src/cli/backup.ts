import { open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import type { Feed } from '../feed.js';
import { connectFeed } from './connection-options.js';
import { CommandError, EXIT } from './exit-codes.js';
import { catchSignals } from './interruption.js';
import { formatCount, formatDuration, Progress } from './progress.js';
import { systemError } from '../system-error.js';

const EXAMPLES = `
Examples:
  feed backup feed.backup                           a copy of the whole log, made while the server goes on
  FEED_DATA_DIR=./data feed-server restore feed.backup
                                                    makes a log of it, in an empty directory

The file gets its name once all of it is there and flushed; a file of that name is replaced then. It has what was stored when the
command began. Until it ends, the server's log file grows by all that is stored, also where retention makes room.`;

/** Registers `feed backup`. */
export function addBackupCommand(program: Command): void {
  program
    .command('backup')
    .description('copies the whole log of a server into a file')
    .argument('<file>', 'the file')
    .addHelpText('after', EXAMPLES)
    .action(backUp);
}

async function backUp(path: string, _options: object, command: Command): Promise<void> {
  await checkName(path);
  const interruption = catchSignals();
  const startedAt = performance.now();
  let [bytes, total] = [0, 0];
  const progress = new Progress(() => ({
    ...(total > 0 ? { fraction: bytes / total } : {}),
    text: `${formatCount(bytes)} bytes`,
  }));
  await using feed = connectFeed(command);
  progress.start();
  try {
    for await (const size of saved(feed, path, interruption.signal)) [bytes, total] = size;
  } catch (error) {
    if (!interruption.signal.aborted) throw error;
    progress.say(
      `ended after ${formatCount(bytes)} of ${formatCount(total)} bytes; ${path} is not written`,
    );
    process.exitCode = interruption.exitCode;
    return;
  } finally {
    progress.stop();
  }
  const took = formatDuration(performance.now() - startedAt);
  progress.say(`${path}: ${formatCount(bytes)} bytes, in ${took}`);
}

/** @throws CommandError if the name is taken by something that a backup must not replace: a directory, a device or a pipe */
async function checkName(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (!found || found.isFile()) return;
  const what = found.isDirectory() ? 'a directory' : 'no regular file';
  throw new CommandError(`${path} is ${what}`, EXIT.file);
}

/** Saves a backup. Yields how many of how many bytes are written. If it fails or is left, no file stays. */
async function* saved(
  feed: Feed,
  path: string,
  signal: AbortSignal,
): AsyncGenerator<[bytes: number, total: number], void, void> {
  const unfinished = `${path}.part`;
  const file = await open(unfinished, 'w').catch((cause: unknown) => {
    throw cantWrite(unfinished, cause);
  });
  let hasName = false;
  try {
    let bytes = 0;
    for await (const { data, totalBytes } of feed.admin.backup({ signal })) {
      await onDisk(unfinished, file.writeFile(data));
      bytes += data.length;
      yield [bytes, totalBytes];
    }
    await onDisk(unfinished, file.sync());
    await onDisk(path, rename(unfinished, path));
    hasName = true;
  } finally {
    await file.close();
    if (!hasName) await rm(unfinished, { force: true });
  }
  const directory = await open(dirname(path), 'r');
  await directory.sync();
  await directory.close();
}

async function onDisk(path: string, work: Promise<void>): Promise<void> {
  await work.catch((cause: unknown) => {
    throw cantWrite(path, cause);
  });
}

function cantWrite(path: string, cause: unknown): CommandError {
  return new CommandError(`${path} can't be written: ${systemError(cause)}`, EXIT.file, { cause });
}
