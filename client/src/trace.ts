import {
  context,
  propagation,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import type { Event } from './gen/feed/v1/feed.js';

// All of this does nothing, at next to no cost, in a process that has set up no OpenTelemetry.

type Texts = Readonly<Record<string, string>>;

/** Adds the trace that the process is in to the headers of a call, or the attributes of an event, unless they name one. */
export function withTrace<T extends Texts | undefined>(texts: T): T | Texts {
  const active = context.active();
  if (!trace.getSpanContext(active) || texts?.traceparent !== undefined) return texts;
  const carrier: Record<string, string> = { ...texts };
  propagation.inject(active, carrier);
  return carrier;
}

/**
 * Runs the handler of an event in a span of its own, in the trace that the event's producer was in. If the event's attributes
 * name no trace, the span begins one. Where the process has set up no OpenTelemetry, this only runs the handler.
 */
export async function handleInTrace<T>(event: Event, handle: () => T | Promise<T>): Promise<T> {
  const producer = propagation.extract(ROOT_CONTEXT, event.attributes);
  const tracer = trace.getTracer('@feed-events/client');
  const options = {
    kind: SpanKind.CONSUMER,
    attributes: {
      'messaging.system': 'feed',
      'messaging.operation.type': 'process',
      'messaging.destination.name': event.topic,
      'messaging.message.id': event.id,
    },
  };
  return tracer.startActiveSpan(`process ${event.topic}`, options, producer, async (span) => {
    try {
      return await handle();
    } catch (error) {
      span.recordException(error as Error);
      span.setStatus({ code: SpanStatusCode.ERROR });
      throw error;
    } finally {
      span.end();
    }
  });
}
