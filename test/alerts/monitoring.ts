import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';

const pathOf = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const read = (path: string): string => readFileSync(pathOf(path), 'utf8');

export interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly runbook: string };
}

/** The path of the file of rules. */
export const RULES = pathOf('helm/feed/rules/feed.yaml');

export const ALERTS: readonly Alert[] = (
  parse(read('helm/feed/rules/feed.yaml')) as {
    readonly groups: readonly { readonly rules: readonly Alert[] }[];
  }
).groups.flatMap(({ rules }) => rules);

interface Panel {
  readonly title: string;
  readonly targets?: readonly { readonly expr: string }[];
}

/** Each query of the dashboard, with the title of its panel. */
export const QUERIES: readonly { readonly title: string; readonly expr: string }[] = (
  JSON.parse(read('helm/feed/dashboards/feed.json')) as { readonly panels: readonly Panel[] }
).panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ title, expr })));

/** The labels of each metric, by its name, as docs/metrics.md has them. test/e2e/metrics.spec.ts compares that with a service. */
export const METRICS: ReadonlyMap<string, readonly string[]> = new Map(
  Array.from(
    read('docs/metrics.md').matchAll(/^\| `(feed_\w+)` \| \w+ \| (.*?) \|/gm),
    ([, name, labels]) => [name, Array.from(labels.matchAll(/\w+/g), ([label]) => label)],
  ),
);

export const OPERATIONS: string = read('docs/operations.md');
