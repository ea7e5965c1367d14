/** A page of metrics, as Prometheus reads it. */
export interface Page {
  /** By name: type, help, and the names of the labels that its samples have, but for `le`. */
  readonly metrics: ReadonlyMap<string, PageMetric>;
  /** Returns the value of a time series; undefined if there is none. Labels are those of the page, in any order. */
  value(name: string, labels?: Readonly<Record<string, string>>): number | undefined;
}

export interface PageMetric {
  readonly type: string;
  readonly help: string;
  readonly labels: Set<string>;
}

/** Reads the page at `address`, a host:port. */
export async function scrape(address: string): Promise<Page> {
  const response = await fetch(`http://${address}/metrics`);
  if (!response.ok) throw new Error(`HTTP ${response.status}: ${await response.text()}`);
  return parsePage(await response.text());
}

/** Reads Prometheus' text format. Throws if a sample has no TYPE and HELP before it. */
export function parsePage(text: string): Page {
  const metrics = new Map<string, PageMetric>();
  const values = new Map<string, number>();
  const helps = new Map<string, string>();
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const [, kind, about, rest] = /^# (HELP|TYPE) (\w+) (.*)$/.exec(line) ?? [];
    if (kind === 'HELP') {
      helps.set(about, rest);
      continue;
    }
    if (kind === 'TYPE') {
      metrics.set(about, { type: rest, help: helps.get(about)!, labels: new Set() });
      continue;
    }
    const sample = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!sample) throw new Error(`not a line of metrics: ${line}`);
    const [, name, inBraces = '', value] = sample;
    const labels = Object.fromEntries(
      Array.from(inBraces.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g), ([, label, labelValue]) => [
        label,
        labelValue,
      ]),
    );
    const metric = metrics.get(name) ?? metrics.get(name.replace(/_(bucket|sum|count)$/, ''));
    if (!metric) throw new Error(`a sample without a type: ${line}`);
    for (const label of Object.keys(labels)) if (label !== 'le') metric.labels.add(label);
    const key = keyOf(name, labels);
    if (values.has(key)) throw new Error(`twice: ${line}`);
    values.set(key, Number(value));
  }
  return { metrics, value: (name, labels = {}) => values.get(keyOf(name, labels)) };
}

const keyOf = (name: string, labels: Readonly<Record<string, string>>): string =>
  JSON.stringify([name, Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1))]);
