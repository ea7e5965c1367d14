import { parseTraceParent } from '../telemetry/traceparent.js';
import type { CallSpan, Tracing } from '../telemetry/tracing.js';
import type { HttpCall } from './http-call.js';

/**
 * Notes the trace of a call that begins, for its line in the log: that of its caller, or one that begins here.
 *
 * @returns its span, to which its use case adds milestones; undefined if it is not recorded
 */
export function beginTrace(call: HttpCall, tracing: Tracing | undefined): CallSpan | undefined {
  const { traceparent } = call.request.headers;
  const parent = typeof traceparent === 'string' ? parseTraceParent(traceparent) : undefined;
  if (parent) call.notes.traceId = parent.traceId;
  const { method, url = '' } = call.request;
  const span = tracing?.begin(call.method.slice(1), parent, {
    'http.request.method': method,
    'url.path': url.split('?', 1)[0],
    'client.address': call.peer,
  });
  if (!span) return undefined;
  call.notes.traceId = span.traceId;
  call.onMilestone = (name) => span.milestone(name);
  return span;
}

/**
 * Ends the span of a call.
 *
 * @param failure why the call failed, if that is a fault of this side
 */
export function endTrace(
  span: CallSpan,
  { response, notes, events, bytes }: HttpCall,
  reason: string | undefined,
  failure: string | undefined,
): void {
  span.end(
    {
      'http.response.status_code': response.headersSent ? response.statusCode : undefined,
      'feed.reason': reason,
      'feed.topic': notes.topic,
      'feed.principal': notes.principal,
      'feed.events': events,
      'feed.bytes': bytes,
    },
    failure,
  );
}
