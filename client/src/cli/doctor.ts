import { randomBytes } from 'node:crypto';
import { type Command, InvalidArgumentError } from 'commander';
import { withDefaults } from '../feed.js';
import { parseAddresses } from '../grpc/addresses.js';
import { connectionOf } from './connection-options.js';
import { examine } from './doctor/examine.js';
import type { Check } from './doctor/finding.js';
import { jsonOf, linesOf, summaryOf } from './doctor/report.js';
import { EXIT } from './exit-codes.js';
import { catchSignals } from './interruption.js';
import { Output } from './output.js';
import { formatDuration, Progress } from './progress.js';
import { paintFor, widthOf } from './terminal.js';

interface DoctorOptions {
  readonly topic?: string;
  readonly idle: number;
  readonly quick?: boolean;
  readonly json?: boolean;
}

/** Registers `feed doctor`. */
export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('checks the way to a server, step by step, and says what to change where it fails')
    .option('--topic <topic>', 'watch and upload to this topic (default: feed-doctor.<random>)')
    .option('--idle <seconds>', 'how long two watches stay idle', secondsOf, 90)
    .option('--quick', 'leave the idle watches out')
    .option('--json', 'write each check as a line of JSON')
    .addHelpText(
      'after',
      `
Each check is a line on standard output: ok, warning, FAILED or skipped. Under a warning or failure stands what to change.
The delivery is tried with 5 events, which stay in the topic until retention removes them, and the idle watches with one more.
Exit codes: 0 if no check failed (warnings count as good), 1 if one did.`,
    )
    .action(runDoctor);
}

function secondsOf(text: string): number {
  const seconds = Number(text);
  if (!(seconds >= 1 && seconds <= 86_400))
    throw new InvalidArgumentError('It is a number of seconds, 1 to 86,400.');
  return seconds;
}

async function runDoctor(options: DoctorOptions, command: Command): Promise<void> {
  const { address, options: connection } = connectionOf(command);
  const { topic = `feed-doctor.${randomBytes(6).toString('hex')}`, idle, json } = options;
  const interruption = catchSignals();
  const output = new Output(interruption);
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  const checks: Check[] = [];
  const countdown = countdownOf(idle);
  const paint = paintFor(process.stdout);
  const columns = Math.min(widthOf(process.stdout), 120);
  try {
    const examination = examine({
      addresses: parseAddresses(address),
      options: withDefaults(connection),
      metadata: connection,
      topic,
      idleSeconds: options.quick ? undefined : idle,
      signal: AbortSignal.any([interruption.signal, output.closed]),
      onIdle: () => countdown.start(),
    });
    let server: string | undefined;
    for await (const check of examination) {
      countdown.stop();
      if (!json && check.server !== server) {
        await output.write(`${server === undefined ? '' : '\n'}${paint('bold', check.server)}\n`);
        ({ server } = check);
      }
      checks.push(check);
      await output.write(`${json ? jsonOf(check) : linesOf(check, paint, columns)}\n`);
    }
  } catch (error) {
    if (!interruption.signal.aborted && !output.closed.aborted) throw error;
  } finally {
    countdown.stop();
  }
  await output.flush();
  if (output.closed.aborted) return;
  const isWhole = interruption.exitCode === undefined;
  say(`${isWhole ? '' : 'ended before all was checked: '}${summaryOf(checks)}`);
  const isHealthy = checks.every(({ state }) => state !== 'failed');
  process.exitCode = interruption.exitCode ?? (isHealthy ? EXIT.done : EXIT.failed);
}

/** Shows how long the idle watches still take. */
function countdownOf(seconds: number): { start: () => void; stop: () => void } {
  let end = Infinity;
  const view = (): { fraction: number; text: string } => {
    const left = Math.max(0, end - performance.now());
    return {
      fraction: 1 - left / (seconds * 1_000),
      text: `idle watches, ${formatDuration(left)} left (--quick skips them)`,
    };
  };
  const progress = new Progress(view);
  return {
    start: () => {
      end = performance.now() + seconds * 1_000;
      progress.start();
    },
    stop: () => progress.stop(),
  };
}
