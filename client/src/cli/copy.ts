import { type Command, Option } from 'commander';
import { isAtOrAfter } from '../cursor.js';
import {
  CursorExpiredError,
  EpochChangedError,
  FeedError,
  ForbiddenError,
  UploadError,
} from '../errors.js';
import type { Feed } from '../feed.js';
import type { Event } from '../gen/feed/v1/feed.js';
import { patternProblem } from '../topics.js';
import type { Watch, WatchState } from '../watch.js';
import { addTargetOptions, connectArgument } from './connection-options.js';
import { CopyReport, formatEvents } from './copy-report.js';
import { type CopyIdentity, CopyState } from './copy-state.js';
import { eventBlocks } from './event-blocks.js';
import { CommandError, EXIT } from './exit-codes.js';
import { catchSignals, type Interruption } from './interruption.js';
import { problemOf } from './problem.js';
import { Reconnects } from './reconnects.js';
import { Sent } from './sent.js';

interface CopyCommandOptions {
  readonly topics: readonly string[];
  readonly checkpoint?: string;
  readonly follow?: boolean;
  readonly failOnGap?: boolean;
  readonly doubtful?: 'again' | 'skip';
}

const EXAMPLES = `
Examples:
  feed copy old:50051 new:50051                     all that is stored now; run again, what has come since
  feed copy old:50051 new:50051 --follow            and what follows, until Ctrl-C
  feed copy old:50051 new:50051 --topics 'orders.>' bills
                                                    some topics
  FEED_TOKEN=... FEED_TO_TOKEN=... feed copy old:50051 new:50051 --tls --to-tls
                                                    each server with its own token

The events keep their ids, topics, bodies, times and attributes. Their cursors are new: those of one log mean nothing in the other.
The options of all commands (--token, --tls ...) are for <from>, and those that begin with --to for <to>.

A checkpoint says how far the copy has come. Started again with the same arguments, it goes on there. Events that were sent without an
acknowledgement are sent again with the same ids, so that <to> stores none of them twice. Once its deduplication window is over, it
can't tell any more: then the command ends with exit code 75, and --doubtful answers it.`;

/** Registers `feed copy`. */
export function addCopyCommand(program: Command): void {
  const command = program
    .command('copy')
    .description("copies one server's log into another's, and goes on after any break")
    .argument('<from>', 'the server to read, host:port')
    .argument('<to>', 'the server to store in, host:port')
    .addOption(
      new Option('--topics <pattern...>', 'topics, and patterns of topics, in quotes').default(
        ['>'],
        'all',
      ),
    )
    .option('--follow', 'go on with what is stored from now on, until Ctrl-C')
    .option(
      '--checkpoint <file>',
      'where to keep how far the copy has come (default: feed-copy.<from>.<to>.json)',
    )
    .option(
      '--fail-on-gap',
      'end with exit code 1 where retention removed events before they were read, instead of going on',
    )
    .addOption(
      new Option(
        '--doubtful <how>',
        'when it is too late to know which events are stored: store them again, or skip them',
      ).choices(['again', 'skip']),
    );
  addTargetOptions(command);
  command.addHelpText('after', EXAMPLES).action(copy);
}

/** The state that all parts of one copy share. */
interface Job {
  readonly source: Feed;
  readonly target: Feed;
  readonly identity: CopyIdentity;
  readonly state: CopyState;
  readonly options: CopyCommandOptions;
  readonly interruption: Interruption;
  /** Fires at Ctrl-C: no more events are read. It is the interruption's signal. */
  readonly stopping: AbortSignal;
  readonly report: CopyReport;
}

async function copy(
  from: string,
  to: string,
  options: CopyCommandOptions,
  command: Command,
): Promise<void> {
  if (from === to) throw new CommandError(`${from} can't be copied into itself`, EXIT.usage);
  for (const topic of options.topics) {
    const problem = patternProblem(topic);
    if (problem !== undefined)
      throw new CommandError(`--topics: ${JSON.stringify(topic)}: ${problem}`, EXIT.usage);
  }
  await using source = connectArgument(command, '<from>', from);
  await using target = connectArgument(command, '<to>', to);
  const interruption = catchSignals();
  const { topics, checkpoint = `feed-copy.${fileName(from)}.${fileName(to)}.json` } = options;
  const identity: CopyIdentity = { from, to, topics };
  const state = await CopyState.open(checkpoint, identity);
  await state.finish(); // A checkpoint that can't be saved ends the command before it sends anything.
  const report = new CopyReport();
  const job: Job = {
    source,
    target,
    identity,
    state,
    options,
    interruption,
    stopping: interruption.signal,
    report,
  };
  report.say(
    state.acknowledged === ''
      ? `${checkpoint} keeps how far the copy has come`
      : `going on where ${checkpoint} says`,
  );
  report.start();
  let how = 'ended: ';
  try {
    await copyAll(job);
    how = interruption.signal.aborted ? 'interrupted: ' : '';
  } finally {
    await state.finish().finally(() => report.finish(how));
  }
  // A copy that follows a log has no end of its own, so Ctrl-C is its usual end.
  if (interruption.signal.aborted && !options.follow) process.exitCode = interruption.exitCode;
}

/** Makes a part of a file's name of an address. */
const fileName = (address: string): string => address.replaceAll(/[^\w.-]+/g, '_');

/** Copies what is in doubt, if there is something, and then the rest. */
async function copyAll(job: Job): Promise<void> {
  const { state, stopping } = job;
  while (!stopping.aborted) {
    const { doubt } = state;
    try {
      if (!doubt) return await copyRest(job);
      await copyDoubtful(job, doubt);
    } catch (error) {
      // The events that copyRest() has left in doubt are copied in the next turn.
      if (doubt || !isTooLate(error)) throw error;
      job.report.forgetUnstored();
    }
  }
}

/** Copies what comes after the acknowledged events: to the end that the log has now, or without an end with --follow. */
async function copyRest(job: Job): Promise<void> {
  const { state, options, stopping } = job;
  const failing = new AbortController();
  const watch = watchSource(job, AbortSignal.any([stopping, failing.signal]), !options.follow);
  try {
    await upload(job, eventBlocks(watch));
  } finally {
    failing.abort(); // Otherwise the watch would go on, and keep the process alive.
  }
  // The log may end in other topics. A watch that was stopped may have read more than was copied.
  if (!stopping.aborted && watch.cursor !== undefined) state.acknowledge(watch.cursor);
}

/**
 * Sends the events in doubt again, in an upload of their own, so that no event after them gets in doubt meanwhile. If it is too late
 * for that, does with them what --doubtful says.
 */
async function copyDoubtful(
  job: Job,
  { end, since }: { readonly end: string; readonly since: Date },
): Promise<void> {
  const { state, options, identity, stopping, report } = job;
  const events = await readTo(job, end);
  if (stopping.aborted) return;
  try {
    if (events.length > 0) await upload(job, [events], { events: events.length, since });
    await state.narrowDoubt(state.acknowledged);
  } catch (error) {
    if (!isTooLate(error)) throw error;
    const left = events.filter(({ cursor }) => !isAtOrAfter(state.acknowledged, cursor));
    const what = `${identity.to} can't tell any more whether it has what was sent to it at ${since.toISOString()} without an acknowledgement: ${formatEvents(left.length)} after ${state.acknowledged || 'the start'}`;
    if (options.doubtful === undefined)
      throw new CommandError(
        `${what}. --doubtful again stores these, some of them perhaps twice; --doubtful skip leaves them out, and some may be missing`,
        EXIT.doubt,
        { cause: error },
      );
    report.say(`${what}; ${options.doubtful === 'again' ? 'stored again' : 'skipped'}`);
    await state.settleDoubt(options.doubtful);
    report.forgetUnstored();
  }
}

/** Returns the events after the acknowledged ones, up to a cursor. */
async function readTo(job: Job, end: string): Promise<readonly Event[]> {
  const events: Event[] = [];
  try {
    for await (const event of watchSource(job, job.stopping, true)) {
      if (!isAtOrAfter(end, event.cursor)) break;
      events.push(event);
      if (isAtOrAfter(event.cursor, end)) break;
    }
  } catch (error) {
    throw error instanceof FeedError ? failedAt(job.identity.from, error) : error;
  }
  return events;
}

const isTooLate = (error: unknown): boolean =>
  error instanceof UploadError && error.reason === 'DEDUP_WINDOW_PASSED';

/** Returns a watch of what comes after the acknowledged events. */
function watchSource(job: Job, signal: AbortSignal, hasEnd: boolean): Watch {
  const { source, identity, state, options } = job;
  const { acknowledged, earliest } = state;
  const say = stateSayer(job);
  const watch = source.watch(identity.topics, {
    from: acknowledged === '' ? 'earliest' : { cursor: acknowledged, earliest },
    ...(hasEnd ? { until: 'head' } : {}),
    signal,
    expired: options.failOnGap ? 'throw' : 'earliest',
    onState: (entered) => {
      state.earliest = watch.earliest ?? state.earliest;
      say(entered);
    },
    areEncoded: true,
  });
  return watch;
}

/** Returns the listener that says in a line how the state of the watch has changed, where that matters to people. */
function stateSayer({ identity: { from }, options, report }: Job): (state: WatchState) => void {
  const reconnects = new Reconnects((text) => report.say(text));
  let hasCaughtUp = false;
  return (state) => {
    if (state.name === 'reconnecting') reconnects.failed(state.reason);
    else if (state.name === 'gap') {
      report.gaps++;
      report.say(
        `a gap: ${from} removed events after ${state.after || 'the start'} before they were read; going on with what is left`,
      );
    } else if (state.name === 'behind' || state.name === 'live') {
      if (reconnects.succeeded()) report.say(`connected again to ${from}`);
      if (!options.follow || hasCaughtUp || state.name === 'behind') return;
      hasCaughtUp = true;
      report.say('all that was stored is read; following what comes');
    }
  };
}

/**
 * Stores events in the other log, and keeps the state up to date.
 *
 * @param doubtful says that all of them are in doubt: they were sent before
 */
async function upload(
  job: Job,
  blocks: AsyncIterable<readonly Event[]> | Iterable<readonly Event[]>,
  doubtful?: { readonly events: number; readonly since: Date },
): Promise<void> {
  const { target, identity, state, report } = job;
  const sent = new Sent<string>();
  const reconnects = new Reconnects((text) => report.say(text));
  let hasFailed = false;
  async function* events(): AsyncGenerator<Event, void, void> {
    for await (const block of blocks) {
      if (hasFailed) return; // The state must not say that this block was sent.
      await state.beforeSending(block[block.length - 1].cursor);
      for (const event of block) {
        sent.push(event.cursor);
        report.taken++;
        yield event;
      }
    }
  }
  let retries = 0;
  try {
    const { duplicates } = await target.upload('', events(), {
      signal: job.interruption.ending,
      ...(doubtful ? { doubtful } : {}),
      onProgress: (progress) => {
        if (progress.retries > retries) {
          retries = progress.retries;
          state.broke();
        }
        const count = progress.stored - sent.acknowledged;
        if (count === 0) return;
        if (reconnects.succeeded()) report.say(`connected again to ${identity.to}`);
        state.acknowledge(sent.acknowledge(count));
        report.acknowledged(count);
      },
      onRetry: (reason) => {
        reconnects.failed(reason);
        // The copy waits for a server that is away, and the person who pressed Ctrl-C may not want to.
        if (job.stopping.aborted) report.say('press Ctrl-C again to end now');
      },
    });
    report.duplicates += duplicates;
  } catch (error) {
    hasFailed = true;
    if (error instanceof UploadError && !doubtful) {
      // The error says which events were sent. The state knows only which were read.
      const end = error.unknown > 0 ? sent.at(error.stored + error.unknown - 1) : undefined;
      await state.narrowDoubt(end ?? state.acknowledged);
    }
    throw explained(error, job, sent);
  }
}

/** Returns an error that says which of the servers it is about, and how to go on. */
function explained(error: unknown, job: Job, sent: Sent<string>): unknown {
  if (!(error instanceof UploadError) || isTooLate(error)) return error;
  const { identity, interruption } = job;
  const { cause } = error as { readonly cause: FeedError };
  if (cause.cause instanceof CommandError) return cause.cause; // The checkpoint can't be saved.
  if (interruption.ending.aborted)
    return new CommandError(
      'ended before all was acknowledged. Run the same command again to go on there',
      interruption.exitCode ?? EXIT.failed,
      { cause },
    );
  if (cause.cause instanceof FeedError) return failedAt(identity.from, cause.cause);
  const place = error.index === undefined ? undefined : sent.at(error.index);
  const which = place === undefined ? '' : `: the event of the cursor ${place} in ${identity.from}`;
  return failedAt(`${identity.to}${which}`, cause);
}

/** Returns an error that says where a call failed, and how to go on. */
function failedAt(where: string, failure: FeedError): CommandError {
  return new CommandError(
    `${where}: ${problemOf(failure)} (${failure.reason ?? failure.status}). ${adviceFor(failure)}`,
    failure instanceof ForbiddenError ? EXIT.forbidden : EXIT.failed,
    { cause: failure },
  );
}

function adviceFor(failure: FeedError): string {
  if (failure instanceof CursorExpiredError)
    return 'To go on with what is left, leave --fail-on-gap out';
  if (failure.reason === 'CURSOR_AHEAD')
    return 'The log is another one than before: to copy it from its start, give another --checkpoint';
  if (failure instanceof EpochChangedError)
    return 'To copy this log from its start, give another --checkpoint';
  if (failure.reason === 'TOPIC_INVALID') return 'Give others in --topics';
  return 'What is acknowledged is kept: the same command goes on there';
}
