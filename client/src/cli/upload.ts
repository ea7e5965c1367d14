import type { FileHandle } from 'node:fs/promises';
import { type Command, Option } from 'commander';
import type { NewEvent } from '../backlog.js';
import { FeedError, ForbiddenError, UploadError } from '../errors.js';
import type { Feed } from '../feed.js';
import { topicProblem } from '../topics.js';
import { ask } from './ask.js';
import { connectionOf, connectFeed } from './connection-options.js';
import { CommandError, EXIT } from './exit-codes.js';
import { catchSignals, type Interruption } from './interruption.js';
import { isFile, openFile, openUnseekable, streamOf } from './input-file.js';
import {
  checkInput,
  type FollowedEnd,
  followFile,
  lineBlocks,
  linesOf,
  type Place,
  readFile,
  readStream,
  START,
} from './line-blocks.js';
import { eventOf, type LineFormat } from './line-events.js';
import { formatCount } from './progress.js';
import { Reconnects } from './reconnects.js';
import { ResumeState } from './resume-state.js';
import { Sent } from './sent.js';
import { UploadReport } from './upload-report.js';

interface UploadCommandOptions {
  readonly format: LineFormat;
  readonly follow?: boolean;
  readonly resume?: boolean;
  readonly doubtful?: 'again' | 'skip';
}

const EXAMPLES = `
Examples:
  feed upload orders events.txt                     each line is the body of an event
  seq 1000 | feed upload numbers                    from standard input
  feed watch orders --from earliest --json | feed upload copy --format ndjson
                                                    with the ids and times of the events
  feed upload logs app.log --follow --resume        what is appended, too; after a kill it goes on where it was

With --resume, <file>.feed-resume says how far the upload has come. Started again with the same arguments, it sends only
what is not acknowledged. Lines that were sent without an acknowledgement are sent again with the same ids, so that the
server stores none of them twice. Once its deduplication window is over, the server can't tell any more: then the command
asks on a terminal, and ends with exit code 75 otherwise. --doubtful answers it.`;

/** Registers `feed upload`. */
export function addUploadCommand(program: Command): void {
  program
    .command('upload')
    .description('stores the lines of files or of standard input in a topic, in order')
    .argument('<topic>', 'the topic')
    .argument(
      '[file...]',
      'the files, one after the other; standard input if there is none, or for -',
    )
    .addOption(
      new Option('--format <format>', 'lines: a line is a body; ndjson: a line is an event as JSON')
        .choices(['lines', 'ndjson'])
        .default('lines'),
    )
    .option('--follow', 'wait for what is appended to the file, as tail -F does')
    .option('--resume', 'keep how far the upload has come in <file>.feed-resume, and go on there')
    .addOption(
      new Option(
        '--doubtful <how>',
        'when it is too late to know which lines are stored: store them again, or skip them',
      ).choices(['again', 'skip']),
    )
    .addHelpText('after', EXAMPLES)
    .action(upload);
}

/** The state that all parts of one upload command share. */
interface Job {
  readonly feed: Feed;
  readonly topic: string;
  readonly address: string;
  readonly options: UploadCommandOptions;
  readonly interruption: Interruption;
  /** Fires at Ctrl-C: no more lines are read. It is the interruption's signal. */
  readonly stopping: AbortSignal;
  readonly report: UploadReport;
}

async function upload(
  topic: string,
  files: readonly string[],
  options: UploadCommandOptions,
  command: Command,
): Promise<void> {
  const names = files.length === 0 ? ['-'] : files;
  checkUse(topic, names, options);
  const { address } = connectionOf(command);
  await using feed = connectFeed(command);
  const interruption = catchSignals();
  const report = new UploadReport(topic, names);
  const job: Job = {
    feed,
    topic,
    address,
    options,
    interruption,
    stopping: interruption.signal,
    report,
  };
  await report.start(options.follow !== true);
  let hasFailed = true;
  try {
    for (const name of names) {
      if (interruption.signal.aborted) break;
      if (name === '-') await uploadInput(job);
      else await uploadFile(job, name);
    }
    hasFailed = false;
  } finally {
    report.finish(interruption.signal.aborted, hasFailed);
  }
  // An upload that follows a file has no end of its own, so Ctrl-C is its usual end.
  if (interruption.signal.aborted && !options.follow) process.exitCode = interruption.exitCode;
}

/** @throws CommandError for a name that is no topic, and for options that do not go together */
function checkUse(
  topic: string,
  names: readonly string[],
  { follow, resume, doubtful }: UploadCommandOptions,
): void {
  const wrong = (message: string): never => {
    throw new CommandError(message, EXIT.usage);
  };
  // The server refuses such a name with the first event, and an upload of nothing has none.
  const problem = topicProblem(topic);
  if (problem !== undefined) wrong(`${JSON.stringify(topic)} is no topic: ${problem}`);
  const usesInput = names.includes('-');
  if (follow && (names.length > 1 || usesInput)) wrong('--follow needs one file');
  if (resume && usesInput) wrong('--resume needs a file: standard input can not be read again');
  if (doubtful !== undefined && !resume) wrong('--doubtful goes with --resume');
  if (new Set(names).size < names.length) wrong('a file is named twice');
}

async function uploadInput(job: Job): Promise<void> {
  checkInput();
  if (process.stdin.isTTY) {
    job.report.pause(); // The progress line would overwrite what is typed.
    job.report.say('reading from the terminal: each line is an event, Ctrl-D ends');
  }
  const read: ReadBytes<void> = (signal) => readStream(process.stdin, signal);
  await uploadLines(job, 'standard input', read, START, undefined);
}

async function uploadFile(job: Job, path: string): Promise<void> {
  const { options, report, stopping } = job;
  let end: FollowedEnd | undefined;
  do {
    if (!(await isFile(path))) {
      // A pipe has no offsets, and can't be read again.
      if (options.resume || options.follow)
        throw new CommandError(
          `--resume and --follow need a file, which ${path} is not`,
          EXIT.usage,
        );
      const fd = await openUnseekable(path);
      const read: ReadBytes<void> = (signal) => readStream(streamOf(fd), signal);
      await uploadLines(job, path, read, START, undefined);
      return;
    }
    await using file = await openFile(path);
    let state: ResumeState | undefined;
    if (options.resume) {
      // A file that has replaced the followed one is uploaded from its start.
      state = await resumeStateOf(job, path, file, end !== undefined);
      if (state.acknowledged.line > 0)
        report.say(
          `${path}: going on after line ${formatCount(state.acknowledged.line)}, which was acknowledged before`,
        );
    }
    end = await uploadOpenFile(job, path, file, state);
    if (end) report.say(`${path} was ${end}: going on with what has its name now, from its start`);
  } while (end && !stopping.aborted);
}

/**
 * Returns the saved state of a file, or a new one where there is none. With `isNew`, what was saved is of the file before.
 *
 * @throws CommandError if the state is of another file, unless the file is followed
 */
async function resumeStateOf(
  { options, report, topic, address }: Job,
  path: string,
  file: FileHandle,
  isNew: boolean,
): Promise<ResumeState> {
  const statePath = `${path}.feed-resume`;
  const saved = isNew ? undefined : await ResumeState.open(statePath, path, file, topic, address);
  if (saved === 'none' || isNew) return ResumeState.begin(statePath, file, topic, address);
  if (saved) return saved;
  if (!options.follow)
    throw new CommandError(
      `${path} is not the file that ${statePath} is about: it was replaced, cut or changed. Remove ${statePath} to upload ${path} from its start`,
      EXIT.file,
    );
  report.say(`${path} is another file than before: it is uploaded from its start`);
  return ResumeState.begin(statePath, file, topic, address);
}

/**
 * Uploads a file to its end, and settles what to do with lines in doubt. Returns why the reading of a followed file ended, or
 * undefined.
 */
async function uploadOpenFile(
  job: Job,
  path: string,
  file: FileHandle,
  state: ResumeState | undefined,
): Promise<FollowedEnd | undefined> {
  job.report.skipped(state?.acknowledged.offset ?? 0);
  for (;;) {
    const start = state?.acknowledged ?? START;
    // Lines in doubt are sent first, in an upload of their own, so that no line after them gets in doubt meanwhile.
    const doubt = state?.doubtful;
    const read: ReadBytes<FollowedEnd | undefined> = (signal) =>
      job.options.follow && !doubt
        ? followFile(path, file, start.offset, signal)
        : readFile(file, start.offset, signal, doubt?.end.offset);
    try {
      const end = await uploadLines(job, path, read, start, state);
      if (!doubt || job.stopping.aborted) return end;
      if (state?.doubtful) await state.narrowDoubt(state.acknowledged); // The file has become shorter: the rest of them is gone.
    } catch (error) {
      const isTooLate = error instanceof UploadError && error.reason === 'DEDUP_WINDOW_PASSED';
      if (!state || !isTooLate) throw error;
      await state.settleDoubt(await answerDoubt(job, path, state));
      job.report.forgetUnstored();
    } finally {
      await state?.finish();
    }
  }
}

/** Reads until the signal fires, or to the end of what there is to read. */
type ReadBytes<R> = (signal: AbortSignal) => AsyncGenerator<Buffer, R, void>;

/**
 * Uploads the lines that `read` reads.
 *
 * @param name of the file, for messages
 * @param start where in the file they begin
 * @param state is kept up to date; undefined without --resume
 * @returns what `read` returned
 */
async function uploadLines<R>(
  job: Job,
  name: string,
  read: ReadBytes<R>,
  start: Place,
  state: ResumeState | undefined,
): Promise<R> {
  const { feed, topic, options, report } = job;
  const sent = new Sent<Place>();
  const doubtful = state?.doubtful;
  const reconnects = new Reconnects((text) => report.say(text));
  /** Fires when the upload has failed: no more lines are read. */
  const failing = new AbortController();
  const stopping = AbortSignal.any([job.stopping, failing.signal]);
  let result: R;
  let readTo: Place | undefined;
  async function* events(): AsyncGenerator<NewEvent, void, void> {
    const blocks = lineBlocks(read(stopping), start, name, stopping);
    for (;;) {
      const next = await blocks.next();
      if (next.done) {
        result = next.value;
        return;
      }
      if (failing.signal.aborted) return; // The state must not say that this block was sent.
      readTo = next.value.end;
      await state?.beforeSending(next.value.end);
      for (const line of linesOf(next.value)) {
        const event = eventOf(line, options.format, name);
        if (!event) continue;
        sent.push(line.end);
        report.taken++;
        yield state && event.id === undefined
          ? { ...event, id: `${state.key}-${line.offset}` }
          : event;
      }
    }
  }
  let retries = 0;
  let acknowledgedOffset = start.offset;
  try {
    const { duplicates, lastCursor } = await feed.upload(topic, events(), {
      signal: job.interruption.ending,
      ...(doubtful ? { doubtful } : {}),
      onProgress: (progress) => {
        if (progress.retries > retries) {
          retries = progress.retries;
          state?.broke();
        }
        const count = progress.stored - sent.acknowledged;
        if (count === 0) return;
        reconnects.succeeded();
        const place = sent.acknowledge(count);
        state?.acknowledge(place);
        report.acknowledged(count, place.offset - acknowledgedOffset);
        acknowledgedOffset = place.offset;
      },
      onRetry: (reason) => {
        reconnects.failed(reason);
        // The upload waits for a server that is away, and the person who pressed Ctrl-C may not want to.
        if (job.stopping.aborted) report.say('press Ctrl-C again to end now');
      },
    });
    report.duplicates += duplicates;
    if (lastCursor !== '') report.lastCursor = lastCursor;
    // Empty lines of NDJSON are no events, so no acknowledgement covers those at the end.
    if (readTo) state?.acknowledge(readTo);
    return result!;
  } catch (error) {
    failing.abort(); // Otherwise the source would read on, and keep the process alive.
    // The error says which events were sent. The state knows only which lines were read. Of lines that were in doubt before, the error
    // counts only those that were read again; but no line after one that is no event was ever sent.
    if (state && error instanceof UploadError && (!doubtful || isOfLine(error))) {
      const end = error.unknown > 0 ? sent.at(error.stored + error.unknown - 1) : undefined;
      await state.narrowDoubt(end ?? state.acknowledged);
    }
    throw explained(error, job, name, sent, state);
  }
}

/** Returns true if a line of the file is no event, and all before it are stored. */
function isOfLine(error: UploadError): boolean {
  return error.unknown === 0 && (error.cause as FeedError).cause instanceof CommandError;
}

/** Returns an error that says which line of the file it is about, what became of the others, and how to go on. */
function explained(
  error: unknown,
  job: Job,
  name: string,
  sent: Sent<Place>,
  state: ResumeState | undefined,
): unknown {
  if (!(error instanceof UploadError) || (error.reason === 'DEDUP_WINDOW_PASSED' && state))
    return error;
  const cause = error.cause as FeedError;
  if (cause.cause instanceof CommandError) return cause.cause; // The source failed: a line is no event, for example.
  const line = error.index === undefined ? undefined : sent.at(error.index)?.line;
  if (line !== undefined)
    return new CommandError(
      `line ${line} of ${name}: ${cause.message} (${cause.reason ?? cause.status}). The lines before it are stored, and those after it are not`,
      cause instanceof ForbiddenError ? EXIT.forbidden : EXIT.file,
      { cause },
    );
  const isInterrupted = job.interruption.ending.aborted;
  if (error.unknown === 0 && !isInterrupted) return cause;
  const why = isInterrupted
    ? 'ended before all was acknowledged'
    : `${cause.message} (${cause.reason ?? cause.status})`;
  const doubt =
    error.unknown === 0
      ? ''
      : `. It is unknown whether the ${formatCount(error.unknown)} lines after the ${formatCount(error.stored)} stored ones are stored`;
  const advice = state ? '. Run the same command again to go on there' : '';
  const exitCode = isInterrupted ? job.interruption.exitCode : undefined;
  return new CommandError(
    `${why}${doubt}${advice}`,
    exitCode ?? (state ? EXIT.failed : EXIT.doubt),
    { cause },
  );
}

/**
 * Returns what to do with the lines in doubt, from --doubtful or from the person at the terminal.
 *
 * @throws CommandError if there is no answer, or the answer is to quit
 */
async function answerDoubt(
  { options, report, interruption }: Job,
  path: string,
  state: ResumeState,
): Promise<'again' | 'skip'> {
  const { events = 0, since } = state.doubtful ?? {};
  const first = state.acknowledged.line + 1;
  const what = `${path}: lines ${formatCount(first)} to ${formatCount(first + events - 1)} were sent at ${since?.toISOString()} without an acknowledgement, and the server can't tell any more whether it has them`;
  if (options.doubtful !== undefined) {
    report.say(`${what}; they are ${options.doubtful === 'again' ? 'stored again' : 'skipped'}`);
    return options.doubtful;
  }
  if (!process.stdin.isTTY || !process.stderr.isTTY)
    throw new CommandError(
      `${what}. --doubtful again stores them, up to ${formatCount(events)} of them twice; --doubtful skip leaves them out, and up to ${formatCount(events)} may be missing`,
      EXIT.doubt,
    );
  report.say(`${what}.`);
  report.pause();
  try {
    for (;;) {
      const answer = await ask(
        'Store them again (some may be there twice), skip them (some may be missing), or quit? [a/s/q] ',
        interruption,
      );
      if (answer === 'a') return 'again';
      if (answer === 's') return 'skip';
      if (answer === 'q') throw new CommandError('the upload was left as it is', EXIT.doubt);
    }
  } finally {
    report.resume();
  }
}
