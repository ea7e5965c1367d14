import { setTimeout as sleep } from 'node:timers/promises';
import {
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
} from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  type ReadableSpan,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import type { Notices } from './notices.js';
import type { TraceParent } from './traceparent.js';
import type { Attributes, CallSpan, Tracing, TracingOptions } from './tracing.js';
import { version } from './version.js';

/** A collector may take this long (milliseconds) for a batch of spans, also at the end of the process. */
const EXPORT_TIMEOUT = 3_000;
/** Spans are sent this often (milliseconds). Beyond the SDK's queue of 2,048 they are dropped: no call waits for them. */
const EXPORT_INTERVAL = 1_000;

/** Tracing by OpenTelemetry's SDK, over OTLP and HTTP. It registers nothing globally. */
export class OtlpTracing implements Tracing {
  private readonly provider: TracerProvider;
  private readonly tracer: Tracer;

  constructor({ endpoint, percent, notices }: TracingOptions) {
    const url = `${endpoint.href.replace(/\/$/, '')}/v1/traces`;
    const exporter = new OTLPTraceExporter({
      url,
      timeoutMillis: EXPORT_TIMEOUT,
      // timeoutMillis counts only once there is a connection. This also ends an attempt to connect.
      httpAgentOptions: { keepAlive: true, timeout: EXPORT_TIMEOUT },
    });
    this.provider = new TracerProvider({
      resource: resourceFromAttributes({ 'service.name': 'feed', 'service.version': version() }),
      sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(percent / 100) }),
      spanProcessors: [
        new BatchSpanProcessor({
          exporter: reporting(exporter, url, notices),
          scheduledDelayMillis: EXPORT_INTERVAL,
          exportTimeoutMillis: EXPORT_TIMEOUT,
        }),
      ],
    });
    this.tracer = this.provider.getTracer('feed');
  }

  begin(
    name: string,
    parent: TraceParent | undefined,
    attributes: Attributes,
  ): CallSpan | undefined {
    const context = parent
      ? trace.setSpanContext(ROOT_CONTEXT, {
          traceId: parent.traceId,
          spanId: parent.spanId,
          traceFlags: parent.flags,
          isRemote: true,
        })
      : ROOT_CONTEXT;
    const span = this.tracer.startSpan(name, { kind: SpanKind.SERVER, attributes }, context);
    return span.isRecording() ? new OtlpSpan(span) : undefined;
  }

  async onApplicationShutdown(): Promise<void> {
    const sent = this.provider.shutdown().catch(() => {});
    // None of the exporter's limits ends an answer that goes on and on, and the store closes only after this.
    await Promise.race([sent, sleep(1.5 * EXPORT_TIMEOUT, undefined, { ref: false })]);
  }
}

class OtlpSpan implements CallSpan {
  constructor(private readonly span: Span) {}

  get traceId(): string {
    return this.span.spanContext().traceId;
  }

  milestone(name: string): void {
    this.span.addEvent(name);
  }

  end(attributes: Attributes, failure: string | undefined): void {
    this.span.setAttributes(attributes);
    if (failure !== undefined)
      this.span.setStatus({ code: SpanStatusCode.ERROR, message: failure });
    this.span.end();
  }
}

/** Has the log say once when spans can't be sent, and once when they can be again. */
function reporting(exporter: SpanExporter, url: string, notices: Notices): SpanExporter {
  let isFailing = false;
  return {
    export: (spans: ReadableSpan[], done) =>
      exporter.export(spans, (result) => {
        const { error } = result;
        if (error && !isFailing)
          notices.warn(`traces can't be sent to ${url}, and are dropped: ${error.message}`);
        if (!error && isFailing) notices.info(`traces are sent to ${url} again`);
        isFailing = error !== undefined;
        done(result);
      }),
    shutdown: () => exporter.shutdown(),
  };
}
