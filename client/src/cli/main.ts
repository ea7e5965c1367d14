import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { FeedError, ForbiddenError } from '../errors.js';
import { addBackupCommand } from './backup.js';
import { addBenchCommand } from './bench.js';
import { addChatCommand } from './chat.js';
import { addCompletionCommand } from './completion.js';
import { addConnectionOptions } from './connection-options.js';
import { addCopyCommand } from './copy.js';
import { addDoctorCommand } from './doctor.js';
import { CommandError, EXIT, EXIT_BY_SIGNAL, EXIT_CODES_HELP } from './exit-codes.js';
import { Output } from './output.js';
import { paintFor } from './terminal.js';
import { addStreamsCommand } from './streams.js';
import { addTopicCommand } from './topic.js';
import { addTopicsCommand } from './topics.js';
import { addUploadCommand } from './upload.js';
import { addWatchCommand } from './watch.js';

const { version } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { readonly version: string };

/** For help, versions and completion scripts. Commands that have data have an Output of their own. */
const output = new Output();

const program = new Command('feed')
  .description(
    'Watches topics of a Feed server, uploads to them, chats, shows and ends what is open, backs up and copies logs, and checks the way to the server.',
  )
  .version(version)
  .configureHelp({ showGlobalOptions: true })
  .configureOutput({ writeOut: (text) => void output.write(text) })
  .showHelpAfterError('(feed --help, or feed help <command>, says how it is used)')
  .exitOverride()
  .addHelpText('after', EXIT_CODES_HELP);

addConnectionOptions(program);
addWatchCommand(program);
addUploadCommand(program);
addChatCommand(program);
addTopicsCommand(program);
addTopicCommand(program);
addStreamsCommand(program);
addBackupCommand(program);
addCopyCommand(program);
addBenchCommand(program);
addDoctorCommand(program);
addCompletionCommand(program);

// Standard error may be closed. Nobody then reads the messages, so they may be lost, but the command goes on.
process.stderr.on('error', () => {});

const SIGNAL_CODES: readonly unknown[] = Object.values(EXIT_BY_SIGNAL);

try {
  await program.parseAsync().catch((error: unknown) => {
    const isHelp = error instanceof CommanderError && error.exitCode === 0;
    if (!isHelp) throw error;
  });
  await output.flush();
} catch (error) {
  process.exitCode = exitCodeOf(error);
  const text = error instanceof CommanderError ? '' : messageOf(error); // Commander has said it.
  if (text !== '') process.stderr.write(`${paintFor(process.stderr)('red', 'feed:')} ${text}\n`);
  // Else the process would live on for as long as a stalled reader of standard output has not taken the rest.
  if (SIGNAL_CODES.includes(process.exitCode)) process.exit();
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommandError) return error.exitCode;
  if (error instanceof CommanderError) return EXIT.usage;
  return error instanceof ForbiddenError ? EXIT.forbidden : EXIT.failed;
}

/** Returns the message of an error that is expected, and the stack of any other, for a bug report. */
function messageOf(error: unknown): string {
  if (error instanceof CommandError) return error.message;
  if (error instanceof FeedError) return `${error.message} (${error.reason ?? error.status})`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
