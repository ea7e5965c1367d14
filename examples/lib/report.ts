// Prints the result of a run.
import { compare, digest, reassembled, type Share } from './lines.ts';
import type { Watcher } from './watcher.ts';

/**
 * Prints a line for each watcher. Returns true if each watcher has the file, and all got its events in the same
 * order.
 */
export function report(
  lines: readonly string[],
  shares: readonly Share[],
  watchers: readonly Watcher[],
): boolean {
  const fileDigest = digest(lines);
  const log = watchers[watchers.length - 1]; // "afresh", unless the run failed before it
  const order = orderOf(log);
  row('watcher', 'events', 'resumed', 'seconds', 'events/s', 'file (sha256)', 'order (sha256)');
  const results = watchers.map((watcher) => {
    const { name, events, connections, seconds } = watcher;
    const { reached, wrong } = compare(events, shares);
    const missing = lines.length - sum(reached);
    const received = digest(reassembled(events, shares.length));
    const equal =
      missing === 0 && wrong.length === 0 && received === fileDigest && orderOf(watcher) === order;
    row(
      name,
      n(events.length),
      n(Math.max(0, connections - 1)),
      seconds.toFixed(1),
      n(events.length / seconds),
      received,
      orderOf(watcher),
      equal ? 'equal' : 'NOT EQUAL',
    );
    if (missing > 0) console.log(`  ${n(missing)} events are missing`);
    if (orderOf(watcher) !== order)
      console.log(`  its events or their order differ from those of watcher ${log.name}`);
    for (const problem of wrong) console.log(`  ${problem}`);
    return equal;
  });
  row('(the file)', n(lines.length), '', '', '', fileDigest);
  return results.every(Boolean);
}

/** Returns a digest of a watcher's cursors. Watchers with the same digest got the same events in the same order. */
function orderOf({ events }: Watcher): string {
  return digest(events.map(({ cursor }) => cursor));
}

function row(name: string, ...columns: string[]): void {
  const widths = [9, 8, 9, 10, 18, 18, 10];
  const cells = columns.map((column, i) => column.padStart(widths[i]));
  console.log(`${name.padEnd(12)}${cells.join('')}`);
}

/** Formats a whole number: 200,000. */
export function n(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
