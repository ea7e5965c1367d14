import type { Tracing, TracingOptions } from './tracing.js';

/** OpenTelemetry is loaded only here: without it, a start is faster, and no call does anything for it. */
export async function openTracing(options: TracingOptions): Promise<Tracing> {
  const { OtlpTracing } = await import('./otlp-tracing.js');
  return new OtlpTracing(options);
}
