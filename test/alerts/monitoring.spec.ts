import { describe, expect, test } from 'vitest';
import { ALERTS, METRICS, OPERATIONS, QUERIES } from './monitoring.js';

/** What Prometheus adds to each series, and to each bucket of a histogram. */
const ADDED = ['job', 'instance', 'le'];

/** What a query asks for: names of metrics, and the labels by which it selects or sums. */
function namesIn(expr: string): { metrics: string[]; labels: string[] } {
  const metrics = Array.from(expr.matchAll(/\bfeed_\w+/g), ([name]) =>
    METRICS.has(name) ? name : name.replace(/_(bucket|sum|count)$/, ''),
  );
  const selected = Array.from(expr.matchAll(/(\w+)(?:=~|!~|!=|=)"/g), ([, label]) => label);
  const summed = Array.from(expr.matchAll(/\bby \(([^)]*)\)/g), ([, list]) =>
    list.split(',').map((label) => label.trim()),
  ).flat();
  return { metrics, labels: [...selected, ...summed] };
}

describe.each([
  ...ALERTS.map(({ alert, expr }) => ({ what: `the alert ${alert}`, expr })),
  ...QUERIES.map(({ title, expr }) => ({ what: `"${title}" of the dashboard`, expr })),
])('$what', ({ expr }) => {
  test(`asks for metrics and labels that exist: ${expr}`, () => {
    const { metrics, labels } = namesIn(expr);
    expect(metrics.length).toBeGreaterThan(0);
    for (const name of metrics) expect([...METRICS.keys()]).toContain(name);
    const known = [...ADDED, ...metrics.flatMap((name) => METRICS.get(name)!)];
    for (const label of labels) expect(known).toContain(label);
  });
});

describe('docs/operations.md', () => {
  const section = OPERATIONS.slice(OPERATIONS.indexOf('\n## Dashboard and alerts'));
  const paragraphs = Array.from(
    section.matchAll(/^### (\w+)\n\n\*(\w+)\.\* (.+)$/gm),
    ([, alert, severity]) => ({ alert, severity }),
  );

  test('has a paragraph for each alert, with its severity, and for no other', () =>
    expect(paragraphs).toEqual(
      ALERTS.map(({ alert, labels: { severity } }) => ({ alert, severity })),
    ));

  test.each(ALERTS)('is where $alert sends its reader', ({ alert, annotations }) =>
    expect(annotations.runbook).toBe(`docs/operations.md#${alert.toLowerCase()}`),
  );
});
