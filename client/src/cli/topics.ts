import type { Command } from 'commander';
import { Topic } from '../gen/feed/v1/admin.js';
import { connectFeed } from './connection-options.js';
import { catchSignals, listing } from './interruption.js';
import { Output } from './output.js';
import { formatCount } from './progress.js';
import { paintFor, printable } from './terminal.js';

const EXAMPLES = `
Examples:
  feed topics                                       each topic with its events, their bytes and the newest one's time
  feed topics orders.                               those that begin with "orders."
  feed topics --json | jq -r .topic                 their names`;

/** Registers `feed topics`. */
export function addTopicsCommand(program: Command): void {
  program
    .command('topics')
    .description('lists the topics that hold events')
    .argument('[prefix]', 'how the topics begin', '')
    .option('--json', 'one JSON object (proto3 JSON) a line')
    .addHelpText('after', EXAMPLES)
    .action(listTopics);
}

const TABLE_HEAD = `${'EVENTS'.padStart(14)}  ${'BYTES'.padStart(18)}  ${'NEWEST'.padEnd(24)}  WATCHES  TOPIC`;

async function listTopics(
  prefix: string,
  { json }: { readonly json?: boolean },
  command: Command,
): Promise<void> {
  const interruption = catchSignals();
  const output = new Output(interruption);
  const paint = paintFor(process.stdout);
  const signal = AbortSignal.any([interruption.signal, output.closed]);
  await using feed = connectFeed(command);
  let count = 0;
  try {
    for await (const topic of feed.admin.listTopics(prefix, { signal })) {
      if (count++ === 0 && !json) await output.write(`${paint('dim', TABLE_HEAD)}\n`);
      await output.write(json ? topicJson(topic) : tableRow(topic));
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  await output.flush();
  if (output.closed.aborted) return;
  const listed = `${formatCount(count)} ${count === 1 ? 'topic' : 'topics'}`;
  process.stderr.write(`${listing(listed, interruption)}\n`);
  process.exitCode = interruption.exitCode;
}

/** Returns a topic as a line of JSON. Names of topics have no control characters. */
export function topicJson(topic: Topic): string {
  return `${JSON.stringify(Topic.toJSON(topic))}\n`;
}

function tableRow({ topic, events, bytes, newest, watches }: Topic): string {
  const time = newest?.storedAt?.toISOString() ?? '-';
  return (
    `${formatCount(events).padStart(14)}  ${formatCount(bytes).padStart(18)}  ${time.padEnd(24)}  ` +
    `${formatCount(watches).padStart(7)}  ${printable(topic)}\n`
  );
}
