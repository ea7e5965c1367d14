import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { withDefaults } from '../feed.js';
import { parseAddresses } from '../grpc/addresses.js';
import { Servers } from '../grpc/servers.js';
import { callOpener } from '../open-call.js';
import type { Bench, Workload } from './bench/bench.js';
import { EventMaker, TIME_DIGITS } from './bench/events.js';
import { rowOf, TABLE_HEAD, tableRow } from './bench/report.js';
import { WORKLOADS } from './bench/workloads.js';
import { connectionOf } from './connection-options.js';
import { EXIT } from './exit-codes.js';
import { catchSignals } from './interruption.js';
import { Output } from './output.js';
import { Progress } from './progress.js';

interface BenchOptions {
  readonly topic?: string;
  readonly events: number;
  readonly watches: number;
  readonly size: number;
  readonly seconds: number;
  readonly only?: readonly Workload['name'][];
  readonly json?: boolean;
}

/** An event, with its id and topic, has at most 3 MiB on any server (FEED_MAX_EVENT_BYTES). */
const MAX_BODY_BYTES = 3 * 2 ** 20 - 1_024;

/** Registers `feed bench`. */
export function addBenchCommand(program: Command): void {
  const names = WORKLOADS.map(({ name }) => name);
  program
    .command('bench')
    .description('measures how fast a server is')
    .option('--topic <prefix>', 'use topics that begin so (default: feed-bench.<random>)')
    .option('--events <n>', 'events to upload, at most', between(1, 1e9), 100_000)
    .option('--watches <n>', 'watches that get the events of the fan-out', between(1, 10_000), 10)
    .option('--size <bytes>', 'size of a body', between(TIME_DIGITS, MAX_BODY_BYTES), 100)
    .option('--seconds <n>', 'time of a workload, at most', between(0.1, 3_600, false), 2.5)
    .addOption(
      new Option('--only <workloads...>', 'run these workloads only').choices(names as string[]),
    )
    .option('--json', 'write each result as a line of JSON')
    .addHelpText(
      'after',
      `
Workloads:
  upload           events stored a second, in one stream
  replay           events delivered a second, to one watch that begins with the oldest event of the upload
  acknowledgement  the time until an upload of one event is acknowledged
  delivery         the time from the upload of an event to a watch, at 200 events a second
  fan-out          events delivered a second, to all watches together
  chat             messages echoed a second

"client us" is the processor time of this command for an event, in microseconds. If "per second" times "client us" comes near
1,000,000, this command is the limit and not the server.

The events stay in the log until retention removes them. The command says how many bytes it may store before it begins, and
does not ask. It is not for a server that is busy: it loads the server as much as it can, for a few seconds.`,
    )
    .action(runBench);
}

/** Reads a number from `min` to `max`. @throws InvalidArgumentError, which commander reports with the option's name */
function between(min: number, max: number, isWhole = true): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!(value >= min && value <= max) || (isWhole && !Number.isInteger(value)) || text === '')
      throw new InvalidArgumentError(`It is a ${isWhole ? 'whole ' : ''}number, ${min} to ${max}.`);
    return value;
  };
}

async function runBench(options: BenchOptions, command: Command): Promise<void> {
  const { address, options: connection } = connectionOf(command);
  const { topic = `feed-bench.${randomBytes(4).toString('hex')}`, only, json } = options;
  const workloads = WORKLOADS.filter(({ name }) => !only || only.includes(name));
  const interruption = catchSignals();
  const output = new Output(interruption);
  const signal = AbortSignal.any([interruption.signal, output.closed]);
  setMaxListeners(0, signal); // All watches of the fan-out listen to it.
  const servers = new Servers(parseAddresses(address), withDefaults(connection));
  const openCall = callOpener(servers, connection);
  let done = 0;
  let fraction = 0;
  const bench: Bench = {
    ...options,
    open: (method) => openCall(method, signal),
    prefix: topic,
    bodyBytes: options.size,
    progress: (part) => (fraction = part),
    uploaded: 0,
  };
  const progress = new Progress(() => ({
    fraction: (done + fraction) / workloads.length,
    text: `${workloads[done]?.name ?? ''} (${done + 1} of ${workloads.length})`,
  }));
  signal.addEventListener('abort', () => servers.close());
  try {
    progress.say(`${address}: ${storage(bench, workloads)} (Ctrl-C ends it)`);
    for (const workload of workloads) {
      fraction = 0;
      progress.start();
      await workload.prepare?.(bench);
      const before = process.cpuUsage();
      const measured = await workload.run(bench);
      const { user, system } = process.cpuUsage(before);
      const row = rowOf(workload, measured, user + system);
      progress.stop(); // The row may go to the same terminal.
      if (done++ === 0 && !json) await output.write(`${TABLE_HEAD}\n`);
      await output.write(`${json ? JSON.stringify({ ...row, topic }) : tableRow(row)}\n`);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    progress.stop();
    servers.close();
  }
  await output.flush();
  if (output.closed.aborted) return;
  if (interruption.exitCode !== undefined)
    progress.say(`ended after ${done} of ${workloads.length} workloads`);
  process.exitCode = interruption.exitCode ?? EXIT.done;
}

/** Returns a sentence about how much the log may grow, and in which topics. */
function storage(bench: Bench, workloads: readonly Workload[]): string {
  let events = 0;
  const rest = { ...bench };
  for (const workload of workloads) {
    events += workload.stores(rest);
    if (workload.name === 'upload') rest.uploaded = rest.events;
  }
  if (events === 0) return 'nothing is stored';
  const { storedBytes } = new EventMaker(`${bench.prefix}.acknowledgement`, bench.bodyBytes);
  const megabytes = (Math.ceil((events * storedBytes) / 1e5) / 10).toFixed(1);
  return `up to ${megabytes} MB in the topics ${bench.prefix}.*, which stay until retention removes them`;
}
