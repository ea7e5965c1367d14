import { formatCount } from '../progress.js';
import type { Measured, Workload } from './bench.js';

/** One line of the results. `--json` prints it as it is. */
export interface Row {
  readonly workload: Workload['name'];
  readonly unit: string;
  readonly count: number;
  readonly seconds: number;
  readonly perSecond: number;
  readonly megabytesPerSecond: number;
  readonly p50Milliseconds?: number;
  readonly p99Milliseconds?: number;
  /** The processor time of this process for each counted event. Near 1,000,000 / `perSecond`, the client is the limit. */
  readonly clientCpuMicroseconds: number;
}

/** Returns the results of a workload. `cpuMicroseconds` is the processor time that this process took for it. */
export function rowOf({ name, unit }: Workload, measured: Measured, cpuMicroseconds: number): Row {
  const { count, seconds, bytes, latencies } = measured;
  const sorted = (latencies ?? []).toSorted((a, b) => a - b);
  const at = (share: number): number => rounded(sorted[Math.floor(share * (sorted.length - 1))], 2);
  return {
    workload: name,
    unit,
    count,
    seconds: rounded(seconds, 3),
    perSecond: Math.round(count / seconds),
    megabytesPerSecond: rounded(bytes / seconds / 1e6, 2),
    ...(sorted.length > 0 && { p50Milliseconds: at(0.5), p99Milliseconds: at(0.99) }),
    clientCpuMicroseconds: rounded(cpuMicroseconds / Math.max(1, count), 2),
  };
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

const NAME_COLUMNS = 17;

export const TABLE_HEAD = line('', ['per second', 'MB/s', 'p50 ms', 'p99 ms', 'client us'], '');

/** Returns a row of the table. */
export function tableRow(row: Row): string {
  const { p50Milliseconds: p50, p99Milliseconds: p99 } = row;
  const cells = [
    formatCount(row.perSecond),
    row.megabytesPerSecond.toFixed(1),
    p50?.toFixed(1) ?? '',
    p99?.toFixed(1) ?? '',
    row.clientCpuMicroseconds.toFixed(1),
  ];
  return line(
    row.workload,
    cells,
    `${formatCount(row.count)} ${row.unit}, in ${row.seconds.toFixed(1)} s`,
  );
}

function line(name: string, cells: readonly string[], text: string): string {
  const padded = cells.map((cell) => cell.padStart(11)).join('');
  return `${name.padEnd(NAME_COLUMNS)}${padded}  ${text}`.trimEnd();
}
