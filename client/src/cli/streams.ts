import { type Command, Option } from 'commander';
import { OpenStream } from '../gen/feed/v1/admin.js';
import { connectFeed } from './connection-options.js';
import { catchSignals, interruptedCall, listing } from './interruption.js';
import { Output } from './output.js';
import { formatCount, formatDuration } from './progress.js';
import { paintFor, printable } from './terminal.js';

interface StreamsCommandOptions {
  readonly end?: string;
  readonly json?: boolean;
}

const EXAMPLES = `
Examples:
  feed streams                                      the open watches, uploads and chats, the oldest first
  feed streams --json | jq -r 'select(.behind > 1000) | .id'
                                                    watches that are 1,000 events behind
  feed streams --end 3f9c2a-17                      ends one: its client gets ENDED_BY_OPERATOR, and gives up

With several addresses, or dns:///, it asks each server. Behind one address for several replicas, it shows those of one of
them.`;

/** Registers `feed streams`. */
export function addStreamsCommand(program: Command): void {
  program
    .command('streams')
    .description('lists the open watches, uploads and chats, or ends one')
    .addOption(new Option('--end <id>', 'end the stream with this id'))
    .option('--json', 'one JSON object (proto3 JSON) a line')
    .addHelpText('after', EXAMPLES)
    .action(listStreams);
}

const TABLE_HEAD = `${'ID'.padEnd(14)}  ${'METHOD'.padEnd(12)}  ${'AGE'.padStart(12)}  ${'EVENTS'.padStart(12)}  ${'BEHIND'.padStart(10)}  PEER, PRINCIPAL, TOPIC, REPLICA`;

async function listStreams(options: StreamsCommandOptions, command: Command): Promise<void> {
  const interruption = catchSignals();
  const output = new Output(interruption);
  const paint = paintFor(process.stdout);
  const signal = AbortSignal.any([interruption.signal, output.closed]);
  await using feed = connectFeed(command);
  const { end } = options;
  if (end !== undefined) {
    const ended = await feed.admin.endStream(end, { signal }).catch((error: unknown) => {
      throw interruptedCall(error, interruption, `${end} may have been ended`);
    });
    if (options.json) await output.write(streamJson(ended));
    await output.flush();
    process.stderr.write(`ended: ${nameOf(ended)} of ${whose(ended)}\n`);
    return;
  }
  let count = 0;
  try {
    for await (const stream of feed.admin.listStreams({ signal })) {
      if (count++ === 0 && !options.json) await output.write(`${paint('dim', TABLE_HEAD)}\n`);
      await output.write(options.json ? streamJson(stream) : tableRow(stream));
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  await output.flush();
  if (output.closed.aborted) return;
  const listed = `${formatCount(count)} open ${count === 1 ? 'stream' : 'streams'}`;
  process.stderr.write(`${listing(listed, interruption)}\n`);
  process.exitCode = interruption.exitCode;
}

/** Returns a stream as a line of JSON. On a terminal, control characters in a principal are escaped, too. */
function streamJson(stream: OpenStream): string {
  const json = JSON.stringify(OpenStream.toJSON(stream));
  return `${process.stdout.isTTY ? printable(json) : json}\n`;
}

function tableRow(stream: OpenStream): string {
  const { id, startedAt, events, behind, replica } = stream;
  const age = startedAt ? formatDuration(Math.max(0, Date.now() - startedAt.getTime())) : '-';
  const columns = [
    id.padEnd(14),
    nameOf(stream).padEnd(12),
    age.padStart(12),
    formatCount(events).padStart(12),
    (behind === undefined ? '-' : formatCount(behind)).padStart(10),
    whose(stream),
    replica,
  ];
  return `${columns.join('  ')}\n`;
}

/** Returns the method without its service: `Watch`. */
function nameOf({ method }: OpenStream): string {
  return method.slice(method.lastIndexOf('/') + 1);
}

function whose({ peer, principal, topics }: OpenStream): string {
  return [peer, principal || '-', topics.join(',') || '-'].map(printable).join('  ');
}
