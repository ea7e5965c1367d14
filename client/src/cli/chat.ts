import { createInterface, type Interface } from 'node:readline';
import type { Command } from 'commander';
import type { Chat, ChatState } from '../chat.js';
import { ChatMessage } from '../gen/feed/v1/feed.js';
import { connectFeed } from './connection-options.js';
import { catchSignals } from './interruption.js';
import { checkInput, lineBlocks, linesOf, readStream, START } from './line-blocks.js';
import { Output } from './output.js';
import { Reconnects } from './reconnects.js';
import { paintFor, printable } from './terminal.js';

interface ChatCommandOptions {
  readonly from: string;
  readonly json?: boolean;
}

const EXAMPLES = `
Examples:
  feed chat kitchen --from ann                      type a line to say it; Ctrl-D or Ctrl-C leaves
  echo 'dinner is ready' | feed chat kitchen --from bob
                                                    says each line of standard input, then leaves

Rooms keep no history: what is said while you are not in the room, you don't get.`;

/** Clears the terminal's line: the prompt, and what was typed after it. */
const CLEAR_LINE = '\r\u001b[K';

/** Registers `feed chat`. */
export function addChatCommand(program: Command): void {
  program
    .command('chat')
    .description('talks with all others in a room')
    .argument('<room>', 'the room')
    .requiredOption('--from <name>', 'the name that others see')
    .option('--json', 'one JSON object (proto3 JSON) a line for what others say')
    .addHelpText('after', EXAMPLES)
    .action(chat);
}

async function chat(room: string, options: ChatCommandOptions, command: Command): Promise<void> {
  checkInput();
  const interruption = catchSignals();
  const output = new Output(interruption);
  const isInteractive = process.stdin.isTTY && process.stdout.isTTY;
  const stopping = AbortSignal.any([interruption.signal, output.closed]);
  /** Fires when the chat has ended: no more lines are read. */
  const ended = new AbortController();
  const prompt = isInteractive ? promptUntil(ended.signal) : undefined;
  const lines = prompt ?? pipedLines(AbortSignal.any([stopping, ended.signal]));

  /** Writes above the prompt: on a terminal, what is being typed moves down a line. */
  const above = async (write: () => void | Promise<void>): Promise<void> => {
    if (isInteractive) process.stdout.write(CLEAR_LINE);
    await write();
    if (isInteractive) {
      await output.flush();
      prompt!.prompt(true);
    }
  };
  const say = (text: string): void => void above(() => void process.stderr.write(`${text}\n`));

  await using feed = connectFeed(command);
  await using conversation = feed.chat(room, {
    from: options.from,
    signal: stopping,
    onState: stateSayer(room, say),
  });
  const counts = { said: 0, heard: 0 };
  const saying = sayLines(lines, conversation, () => prompt?.prompt(), counts, stopping);
  // When the chat ends by a signal or a broken pipe, the input may still have no next line.
  const end = (): void => ended.abort();
  const receiving = receive(conversation, options, output, above, counts).finally(end);
  await Promise.all([saying, receiving]);
  await output.flush();
  if (output.closed.aborted) return;
  if (isInteractive) process.stdout.write(CLEAR_LINE);
  process.stderr.write(`left ${room}: ${counts.said} said, ${counts.heard} heard\n`);
}

interface Counts {
  said: number;
  heard: number;
}

/** Returns what reads lines from the terminal, after a prompt. */
function promptUntil(signal: AbortSignal): Interface {
  const lines = createInterface({ input: process.stdin, output: process.stdout, prompt: '> ' });
  lines.on('SIGINT', () => lines.close()); // readline takes Ctrl-C from an interactive terminal.
  signal.addEventListener('abort', () => lines.close());
  return lines;
}

/** Yields the lines of standard input. @throws CommandError for one that is not UTF-8 */
async function* pipedLines(signal: AbortSignal): AsyncGenerator<string, void, void> {
  const blocks = lineBlocks(readStream(process.stdin, signal), START, 'standard input', signal);
  for await (const block of blocks) for (const { text } of linesOf(block)) yield text;
}

/** Says each line of the input, and leaves the room at its end. */
async function sayLines(
  lines: AsyncIterable<string>,
  conversation: Chat,
  prompt: () => void,
  counts: Counts,
  signal: AbortSignal,
): Promise<void> {
  prompt();
  try {
    for await (const line of lines) {
      // The server takes a message with an empty text for a join, and passes it to nobody.
      if (line !== '') {
        await conversation.send(line);
        counts.said++;
      }
      prompt();
    }
    await conversation.leave();
  } catch (error) {
    if (signal.aborted) return; // The chat was left while a line was on its way.
    await conversation.leave(); // What was said before may have been refused, which is then the error.
    throw error;
  }
}

/** Writes what others say, until the chat ends. */
async function receive(
  conversation: Chat,
  { json }: ChatCommandOptions,
  output: Output,
  above: (write: () => void | Promise<void>) => Promise<void>,
  counts: Counts,
): Promise<void> {
  const paint = paintFor(process.stdout);
  for await (const message of conversation) {
    counts.heard++;
    const text = json
      ? JSON.stringify(ChatMessage.toJSON(message))
      : `${paint('cyan', `${printable(message.from)}:`)} ${printable(message.text)}`;
    await above(() => output.write(`${process.stdout.isTTY && json ? printable(text) : text}\n`));
    if (output.closed.aborted) return;
  }
}

/** Returns the listener that says in a line how the chat's state has changed. */
function stateSayer(room: string, say: (text: string) => void): (state: ChatState) => void {
  const reconnects = new Reconnects(say);
  return (state) => {
    if (state.name === 'reconnecting') reconnects.failed(state.reason);
    else if (state.name === 'joined')
      say(reconnects.succeeded() ? `connected again; in ${room}` : `in ${room}`);
  };
}
