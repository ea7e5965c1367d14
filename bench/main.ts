// Measures how fast this service is on this machine: npm run bench -- --help
import { cpus, totalmem } from 'node:os';
import { parseArgs } from 'node:util';
import { Service } from './service.ts';
import { warmUp } from './warm-up.ts';
import { type Measured, type Workload, workloads } from './workloads.ts';

const USAGE = `npm run bench -- [options]
  --only <text>   run only workloads with this text in their name
  --rounds <n>    run each workload n times, and print the medians (default: 1)
  --quick         run a tenth of each workload, to see that it works
  --json          print the results as JSON on standard output
Set the service's settings in the environment: FEED_DURABILITY=none npm run bench`;

interface Row {
  readonly name: string;
  readonly unit: string;
  readonly rate: number;
  /** The service's processor time for each counted event. */
  readonly microseconds: number | undefined;
  readonly p50: number | undefined;
  readonly p99: number | undefined;
  readonly memoryEach: number | undefined;
  /** This rate divided by the rate of the workload that this one is compared with, if that one was run too. */
  share?: number;
  comparedWith?: string;
}

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    rounds: { type: 'string', default: '1' },
    quick: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (options.help) console.log(USAGE);
else await main();

async function main(): Promise<void> {
  const chosen = workloads.filter(({ name }) => name.includes(options.only));
  if (chosen.length === 0) throw new Error(`no workload has ${options.only} in its name`);
  const rows: Row[] = [];
  for (const [i, workload] of chosen.entries()) {
    const rounds: Row[] = [];
    for (let round = 1; round <= Number(options.rounds); round++) {
      progress(`${i + 1}/${chosen.length} ${workload.name}, round ${round} ...`);
      rounds.push(await measure(workload, options.quick ? 0.1 : 1));
    }
    rows.push(medians(rounds));
    const other = rows.find(({ name }) => name === workload.comparedWith);
    if (other) {
      const row = rows.at(-1)!;
      row.share = row.rate / other.rate;
      row.comparedWith = other.name;
    }
    progress('');
    if (!options.json) print(rows.at(-1)!, i === 0);
  }
  if (!options.json) return;
  const machine = {
    cpu: cpus()[0].model,
    cpus: cpus().length,
    memory: totalmem(),
    node: process.version,
  };
  console.log(JSON.stringify({ machine, rows }, undefined, 2));
}

async function measure(
  { name, unit, settings = {}, prepare, run }: Workload,
  scale: number,
): Promise<Row> {
  const service = await Service.start(settings);
  try {
    await warmUp(service);
    await prepare?.(service);
    const before = service.cpu();
    const { count, seconds, latencies, memoryEach } = await run(service, scale);
    const after = service.cpu();
    return {
      name,
      unit,
      rate: count / seconds,
      microseconds:
        before !== undefined && after !== undefined ? (after - before) / count : undefined,
      ...percentiles(latencies),
      memoryEach,
    };
  } finally {
    await service.stop();
  }
}

function percentiles(latencies: Measured['latencies']): Pick<Row, 'p50' | 'p99'> {
  const sorted = Float64Array.from(latencies ?? []).toSorted();
  const at = (share: number): number | undefined => sorted[Math.floor(share * (sorted.length - 1))];
  return { p50: at(0.5), p99: at(0.99) };
}

function medians(rounds: readonly Row[]): Row {
  const of = (key: 'rate' | 'microseconds' | 'p50' | 'p99' | 'memoryEach'): number | undefined => {
    const values = rounds.map((row) => row[key]).filter((value) => value !== undefined);
    return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
  };
  const { name, unit } = rounds[0];
  return {
    name,
    unit,
    rate: of('rate')!,
    microseconds: of('microseconds'),
    p50: of('p50'),
    p99: of('p99'),
    memoryEach: of('memoryEach'),
  };
}

function print(
  { name, unit, rate, microseconds, p50, p99, memoryEach, share, comparedWith }: Row,
  isFirst: boolean,
): void {
  const line = (...cells: readonly string[]): void =>
    console.log(
      `${cells[0].padEnd(44)}${cells
        .slice(1, 6)
        .map((cell) => cell.padStart(11))
        .join('')}  ${cells[6]}`,
    );
  const number = (value: number | undefined, digits: number): string =>
    value === undefined ? '' : value.toFixed(digits);
  if (isFirst) line('', 'per second', 'CPU us', 'p50 ms', 'p99 ms', 'KiB each', '');
  line(
    name,
    number(rate, 0),
    number(microseconds, 2),
    number(p50, 1),
    number(p99, 1),
    number(memoryEach, 1),
    share === undefined ? unit : `${unit}; ${share.toFixed(2)} of the rate of ${comparedWith}`,
  );
}

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
  else if (text !== '') process.stderr.write(`${text}\n`);
}
