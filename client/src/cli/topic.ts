import type { Command } from 'commander';
import type { StoredEvent, Topic } from '../gen/feed/v1/admin.js';
import { connectFeed } from './connection-options.js';
import { catchSignals, interruptedCall } from './interruption.js';
import { Output } from './output.js';
import { formatCount } from './progress.js';
import { paintFor } from './terminal.js';
import { topicJson } from './topics.js';

interface TopicCommandOptions {
  readonly delete?: boolean;
  readonly json?: boolean;
}

const EXAMPLES = `
Examples:
  feed topic orders                                 its events and their bytes, the oldest and the newest, its watches
  feed topic orders --delete                        removes what it holds now; it does not ask

Watches that have not been sent the removed events yet end with CURSOR_EXPIRED, as where retention overtakes them. Events that
are uploaded later are kept.`;

/** Registers `feed topic`. */
export function addTopicCommand(program: Command): void {
  program
    .command('topic')
    .description('says what a topic holds, or removes it')
    .argument('<topic>', 'the topic')
    .option('--delete', 'remove what the topic holds now')
    .option('--json', 'a JSON object (proto3 JSON): what the topic holds, or what was removed')
    .addHelpText('after', EXAMPLES)
    .action(showTopic);
}

async function showTopic(
  topic: string,
  options: TopicCommandOptions,
  command: Command,
): Promise<void> {
  const interruption = catchSignals();
  const { signal } = interruption;
  const output = new Output(interruption);
  await using feed = connectFeed(command);
  const asked = options.delete
    ? feed.admin.deleteTopic(topic, { signal })
    : feed.admin.getTopic(topic, { signal });
  const found = await asked.catch((error: unknown) => {
    const doubt = options.delete ? `events of ${topic} may have been removed` : undefined;
    throw interruptedCall(error, interruption, doubt);
  });
  if (options.json) await output.write(topicJson(found));
  else if (!options.delete) await output.write(description(found));
  await output.flush();
  if (options.delete) process.stderr.write(`removed ${amount(found)} of ${topic}\n`);
}

function description(topic: Topic): string {
  const paint = paintFor(process.stdout);
  const rows = [
    ['events', amount(topic)],
    ['oldest', place(topic.oldest)],
    ['newest', place(topic.newest)],
    ['watches', formatCount(topic.watches)],
  ];
  return rows.map(([name, value]) => `${paint('dim', name.padEnd(7))}  ${value}\n`).join('');
}

/** Such as `1,234 events (56,789 bytes)`. */
function amount({ events, bytes }: Topic): string {
  return `${formatCount(events)} ${events === 1 ? 'event' : 'events'} (${formatCount(bytes)} bytes)`;
}

function place(event: StoredEvent | undefined): string {
  return event ? `${event.storedAt?.toISOString() ?? '-'}  cursor ${event.cursor}` : '-';
}
