import { type Metric, Registry } from 'prom-client';
import type { Histogram } from '../telemetry/histogram.js';
import type { Definition, Sample, Readings } from './definition.js';

/**
 * Returns a registry of prom-client that has these metrics. Each is read from the service's own numbers when a page is made,
 * so that nothing of prom-client runs while events go through.
 *
 * @param readings returns those of the page which is being made
 */
export function registryOf(definitions: readonly Definition[], readings: () => Readings): Registry {
  const registry = new Registry();
  for (const definition of definitions) {
    const { name, help, type } = definition;
    const get = () => {
      const values = valuesOf(definition, readings());
      return Promise.resolve({ name, help, type, values, aggregator: 'sum' });
    };
    // The registry calls get() of its metrics, and nothing else, to write a page.
    registry.registerMetric({ name, get } as unknown as Metric);
  }
  return registry;
}

interface Value extends Sample {
  /** The name of the time series, if it is not that of the metric. */
  readonly metricName?: string;
}

function valuesOf(definition: Definition, readings: Readings): readonly Value[] {
  if (definition.type === 'histogram')
    return valuesOfHistogram(definition.name, definition.histogram);
  const read = definition.read(readings);
  const samples = typeof read === 'object' ? read : [{ value: read }];
  return samples.filter(({ value }) => value !== undefined);
}

/** Prometheus wants each bucket to have the values of all smaller ones, too. */
function valuesOfHistogram(name: string, { bounds, counts, count, sum }: Histogram): Value[] {
  let upToBound = 0;
  const buckets = bounds.map((bound, i) => {
    upToBound += counts[i];
    return { metricName: `${name}_bucket`, labels: { le: String(bound) }, value: upToBound };
  });
  return [
    ...buckets,
    { metricName: `${name}_bucket`, labels: { le: '+Inf' }, value: count },
    { metricName: `${name}_sum`, value: sum },
    { metricName: `${name}_count`, value: count },
  ];
}
