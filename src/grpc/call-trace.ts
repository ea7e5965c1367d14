import { status } from '@grpc/grpc-js';
import type { LiveCalls } from '../feed/live-calls.js';
import { parseTraceParent } from '../telemetry/traceparent.js';
import type { CallSpan, Tracing } from '../telemetry/tracing.js';
import { reasonOf } from './call-log.js';
import type { Call, EndedCall } from './transport/index.js';

/** The statuses that are this side's fault, by OpenTelemetry's conventions for servers of gRPC. */
const FAILURES: ReadonlySet<status> = new Set([
  status.UNKNOWN,
  status.DEADLINE_EXCEEDED,
  status.UNIMPLEMENTED,
  status.INTERNAL,
  status.UNAVAILABLE,
  status.DATA_LOSS,
]);

/**
 * Notes the trace of each call that begins, for its line in the log: that of its caller, or one that begins here. If calls are
 * traced, each has a span, to which its use case adds milestones.
 */
export class CallTraces {
  private readonly spans = new WeakMap<Call, CallSpan>();

  constructor(
    private readonly calls: LiveCalls,
    private readonly tracing: Tracing | undefined,
  ) {}

  /** Takes the place of LiveCalls.add(), which it calls. */
  add(call: Call): void {
    const [header] = call.metadata.get('traceparent');
    const parent = typeof header === 'string' ? parseTraceParent(header) : undefined;
    if (parent) call.notes.traceId = parent.traceId;
    if (this.tracing) this.begin(this.tracing, call, parent);
    this.calls.add(call);
  }

  delete(call: Call): void {
    this.calls.delete(call);
  }

  /** Ends the span of a call. */
  end({ call, code, details, error }: EndedCall): void {
    this.spans.get(call)?.end(
      {
        'rpc.grpc.status_code': code,
        'feed.reason': reasonOf(error),
        'feed.topic': call.notes.topic,
        'feed.principal': call.notes.principal,
        'feed.events': call.events,
        'feed.bytes': call.bytes,
      },
      FAILURES.has(code) ? details : undefined,
    );
  }

  private begin(tracing: Tracing, call: Call, parent: ReturnType<typeof parseTraceParent>): void {
    const [, service, method] = call.method.split('/');
    const span = tracing.begin(`${service}/${method}`, parent, {
      'rpc.system': 'grpc',
      'rpc.service': service,
      'rpc.method': method,
      'client.address': call.peer,
    });
    if (!span) return;
    this.spans.set(call, span);
    call.notes.traceId = span.traceId;
    call.onMilestone = (name) => span.milestone(name);
  }
}
