import { type Command, InvalidArgumentError, Option } from 'commander';
import { CursorExpiredError, EpochChangedError, FeedError } from '../errors.js';
import { Event } from '../gen/feed/v1/feed.js';
import { areSeveral, nameTopics } from '../topics.js';
import type { From, WatchState } from '../watch.js';
import { checkpointAfterOutput } from './checkpoint-after-output.js';
import { connectFeed } from './connection-options.js';
import { runUntilItSucceeds } from './event-command.js';
import { CommandError, EXIT } from './exit-codes.js';
import { catchSignals } from './interruption.js';
import { parseDuration, parseTime, wholeNumber } from './option-values.js';
import { Output } from './output.js';
import { problemOf } from './problem.js';
import { formatCount } from './progress.js';
import { Reconnects } from './reconnects.js';
import { paintFor, printable } from './terminal.js';

interface WatchCommandOptions {
  readonly from?: From;
  readonly last?: number;
  readonly json?: boolean;
  readonly checkpoint?: string;
  readonly until?: number;
  readonly exec?: string;
  readonly failOnGap?: boolean;
}

const EXAMPLES = `
Examples:
  feed watch orders                                 what is stored from now on
  feed watch orders --from earliest --json          all that is held, one JSON object a line
  feed watch orders --from 2h --until 100           100 events, the first of two hours ago
  feed watch orders --last 10                       the newest 10, and what follows
  feed watch orders.created 'orders.*.paid'         several topics and patterns, in the order of the log
  feed watch '>' --json                             all topics
  feed watch orders --checkpoint orders.cursor --exec 'curl -sf --data-binary @- http://localhost/hook'
                                                    runs a command for each event, and goes on there after a break

In a pattern, * stands for one token of a topic, and > at the end for one or more. Put patterns in quotes: a shell has its own
meaning for both. A line of several topics has the topic after the time.

The command of --exec gets the event as a line of JSON on its standard input, and FEED_TOPIC, FEED_ID, FEED_CURSOR and
FEED_AT in its environment (without values over 16,384 characters). It runs for one event after the other, and again until it
succeeds. It may run twice for an event if this process is killed.`;

/** Registers `feed watch`. */
export function addWatchCommand(program: Command): void {
  program
    .command('watch')
    .description('prints the events of topics as they are stored, and goes on after any break')
    .argument('<topic...>', 'topics, and patterns of topics')
    .addOption(
      new Option(
        '--from <where>',
        'earliest, live, a cursor (to begin after it), a time ago (90s, 15m, 2h, 7d), or a time (2026-01-31T12:00:00Z)',
      )
        .argParser(parseFrom)
        .default('live' satisfies From)
        .conflicts('last'),
    )
    .addOption(new Option('--last <n>', 'begin with the newest n events').argParser(wholeNumber(0)))
    .option('--json', 'one JSON object (proto3 JSON) a line, with the cursor')
    .option('--checkpoint <file>', 'keep the cursor in a file; if it has one, go on after it')
    .addOption(new Option('--until <n>', 'end after n events').argParser(wholeNumber(1)))
    .option('--exec <command>', 'run a shell command for each event instead of printing it')
    .option(
      '--fail-on-gap',
      'end with exit code 1 where retention removed events, instead of going on',
    )
    .addHelpText('after', EXAMPLES)
    .action(watch);
}

async function watch(
  topics: readonly string[],
  options: WatchCommandOptions,
  command: Command,
): Promise<void> {
  const interruption = catchSignals();
  const output = new Output(interruption);
  const say = (text: string): void => {
    output.send(); // On a terminal, the words stand after the events that they follow.
    process.stderr.write(`${text}\n`);
  };
  const checkpoint =
    options.checkpoint === undefined
      ? undefined
      : checkpointAfterOutput(options.checkpoint, output);
  const withComma = topics.find((topic) => topic.includes(','));
  if (withComma !== undefined)
    say(
      `${withComma} is taken for one topic, with a comma in its name: put a space between topics`,
    );
  await using feed = connectFeed(command);
  const events = feed.watch(topics, {
    from: options.last === undefined ? options.from : { last: options.last },
    signal: AbortSignal.any([interruption.signal, output.closed]),
    ...(checkpoint ? { checkpoint } : {}),
    // A line that is printed twice does little harm; a command that runs twice may. So its cursor is saved after each event.
    ...(options.exec === undefined ? {} : { checkpointEvery: { events: 1 } }),
    expired: options.failOnGap ? 'throw' : 'earliest',
    onState: stateSayer(topics, say),
  });
  const line = options.json ? jsonLine : readableLine(areSeveral(topics));
  const { until = Infinity } = options;
  let count = 0;
  try {
    for await (const event of events) {
      if (options.exec === undefined) {
        await output.write(line(event));
        if (output.closed.aborted) break;
      } else if (!(await runUntilItSucceeds(options.exec, event, interruption.signal, say))) break;
      if (++count >= until) {
        events.accept();
        break;
      }
    }
  } catch (error) {
    throw explained(error, topics, options);
  }
  await output.flush();
  if (output.closed.aborted) return;
  const cursor = events.cursor === undefined ? '' : `; go on with --from ${events.cursor}`;
  say(
    `${formatCount(count)} ${count === 1 ? 'event' : 'events'} of ${nameTopics(topics)}${cursor}`,
  );
  const isDone = options.until === undefined || count >= until;
  process.exitCode = isDone ? EXIT.done : interruption.exitCode;
}

/** Reads the value of --from. @throws InvalidArgumentError, which commander reports with the option's name */
function parseFrom(text: string): From {
  if (text === 'earliest' || text === 'live') return text;
  const ago = parseDuration(text);
  const since = ago === undefined ? parseTime(text) : new Date(Date.now() - ago);
  const isTime = since !== undefined || /^\d{4}-\d\d-\d\d/.test(text);
  if (since && Number.isFinite(since.getTime())) return { since };
  // A cursor has at most 40 characters, and 16 in this version. A text under 12 is taken for a misspelt word.
  if (!isTime && /^[\x21-\x7e]{12,40}$/.test(text)) return { cursor: text };
  throw new InvalidArgumentError(
    'It is earliest, live, a cursor, a time ago such as 2h, or a time with its zone such as 2026-01-31T12:00:00Z.',
  );
}

/** Returns an event as a line of JSON. On a terminal, the control characters that JSON leaves as they are are escaped, too. */
function jsonLine(event: Event): string {
  const json = JSON.stringify(Event.toJSON(event));
  return `${process.stdout.isTTY ? printable(json) : json}\n`;
}

/** Returns the function that makes a line for people: the time, the topic if it is wanted, the id and the body. */
function readableLine(hasTopic: boolean): (event: Event) => string {
  const paint = paintFor(process.stdout);
  return ({ at, topic, id, body }) => {
    const of = hasTopic ? `${paint('green', printable(topic))} ` : '';
    return `${paint('dim', at?.toISOString() ?? '-')} ${of}${paint('cyan', printable(id))} ${printable(body)}\n`;
  };
}

/** Returns the listener that says in a line how the watch's state has changed. */
function stateSayer(
  topics: readonly string[],
  say: (text: string) => void,
): (state: WatchState) => void {
  const name = nameTopics(topics);
  const reconnects = new Reconnects(say);
  let last: WatchState['name'] | undefined;
  return (state) => {
    if (state.name === 'reconnecting') reconnects.failed(state.reason);
    else if (state.name === 'gap')
      say(
        `a gap: retention removed events after ${state.after || 'the start'} before they were read; going on ${areSeveral(topics) ? 'with what is left' : `after ${state.earliest}`}`,
      );
    else if (state.name === 'behind' || state.name === 'live') {
      const again = reconnects.succeeded() ? 'connected again; ' : '';
      if (again !== '' || last !== state.name)
        say(`${again}${name}: ${state.name === 'live' ? 'live' : 'reading what is stored'}`);
      last = state.name;
    }
  };
}

/** Returns an error with what to do about it, where something can be done; otherwise the error as it is. */
function explained(
  error: unknown,
  topics: readonly string[],
  options: WatchCommandOptions,
): unknown {
  if (!(error instanceof FeedError)) return error;
  if (error instanceof CursorExpiredError && areSeveral(topics))
    return new CommandError(
      `${error.message} (${error.reason}). To go on with what is left, leave --fail-on-gap out`,
      EXIT.failed,
      { cause: error },
    );
  const advice = adviceFor(error);
  if (advice === undefined) return error;
  const first = options.checkpoint === undefined ? '' : `remove ${options.checkpoint}, and `;
  return new CommandError(
    `${problemOf(error)} (${error.reason}). To go on, ${first}${advice}`,
    EXIT.failed,
    {
      cause: error,
    },
  );
}

function adviceFor(error: FeedError): string | undefined {
  if (error instanceof CursorExpiredError)
    return `watch --from ${error.earliest}: what was removed is lost`;
  if (error.reason === 'CURSOR_AHEAD')
    return 'watch --from earliest, or --from live: the log is another one than before';
  if (error instanceof EpochChangedError || error.reason === 'CURSOR_INVALID')
    return 'watch --from earliest, or --from live';
  return undefined;
}
