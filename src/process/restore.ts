import { constants, createReadStream, openSync, statSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { type Config, ConfigError, readConfig } from '../config/config.js';
import { restoreBackup } from '../repository/lmdb/restore.js';
import { EXIT_CONFIG } from './command-line.js';
import type { Signals } from './signals.js';

/** What other engines say instead of restoring. */
const INSTEAD: Readonly<Record<Exclude<Config['engine'], 'lmdb'>, string>> = {
  memory: 'the memory engine keeps nothing: set FEED_ENGINE=lmdb',
  jetstream:
    'the events of the jetstream engine are in NATS: `nats stream restore` restores what `nats stream backup` has made ' +
    '(docs/operations.md, "Back up and restore")',
};

/**
 * Restores a backup into the empty data directory of the settings, and exits: with 0, 1 if it fails, or 78 if the settings are
 * bad.
 *
 * @param path the file of the backup; `-` for standard input
 * @param signals a signal ends it with 1 from now on
 */
export async function restore(path: string, signals: Signals): Promise<never> {
  // What was begun is removed by the next restore.
  signals.drain = () => process.exit(1);
  // Nobody has to read how far it is.
  process.stdout.on('error', () => {});
  const say = (message: string): void => void process.stdout.write(`${message}\n`);
  try {
    const config = readConfig(process.env, false);
    if (config.engine !== 'lmdb') throw new ConfigError(INSTEAD[config.engine]);
    const { header, head } = await restoreBackup(
      bytesOf(path),
      path === '-' ? 'on standard input' : path,
      config.dataDir,
      { info: say, error: say },
    );
    say(
      `restored ${header.bytes} bytes into ${config.dataDir}: the log of ${header.at}, whose newest event has the cursor ${head}. ` +
        'Clients with later cursors get EPOCH_CHANGED',
    );
    process.exit(0);
  } catch (error) {
    process.stderr.write(`Feed can't restore: ${(error as Error).message}\n`);
    process.exit(error instanceof ConfigError ? EXIT_CONFIG : 1);
  }
}

async function* bytesOf(path: string): AsyncGenerator<Buffer, void> {
  try {
    yield* path === '-' ? process.stdin : streamOf(path);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'there is no such file' : message;
    throw new Error(`the backup ${path} can't be read: ${why}`, { cause });
  }
}

/**
 * Opens a file or a pipe. fs.ReadStream would wait for a pipe's writer in one of libuv's threads, and exit() would wait for that thread:
 * no signal but SIGKILL could end the process. Away from Linux, a pipe that is opened without its writer could seem to have ended.
 */
function streamOf(path: string): Readable {
  if (process.platform !== 'linux' || !statSync(path).isFIFO()) return createReadStream(path);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return new Socket({ fd, readable: true, writable: false });
}
