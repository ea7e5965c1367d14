import { context, propagation, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import {
  InMemorySpanExporter,
  NodeTracerProvider,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-node';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { handleInTrace, type Event } from '../src/index.js';
import { OnFeedEvent } from '../src/nest/index.js';
import { until } from '../../test/support/wait.js';
import { startHandlers, startService } from './nest-app.js';
import { events, ScriptedServer } from './scripted-server.js';
import { client, take } from './service.js';

test('a process without OpenTelemetry adds nothing to its events', async () => {
  const { grpcAddress } = await startService();
  const feed = client(grpcAddress);
  await feed.upload('t', ['a']);
  const [event] = await take(feed.watch('t', { from: 'earliest' }), 1);
  expect(event.attributes).toEqual({});
  expect(await handleInTrace(event, () => 7)).toBe(7);
});

describe('with OpenTelemetry', () => {
  const exporter = new InMemorySpanExporter();
  const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  beforeAll(() => provider.register());
  beforeEach(() => exporter.reset());
  afterAll(async () => {
    await provider.shutdown();
    for (const api of [trace, context, propagation]) api.disable();
  });

  /** Runs work in a span, and returns the span. */
  async function within(work: () => Promise<unknown>): Promise<ReadableSpan> {
    await trace.getTracer('test').startActiveSpan('producer', async (span) => {
      await work();
      span.end();
    });
    return exporter.getFinishedSpans().find(({ name }) => name === 'producer')!;
  }

  test("a handler's span has the producer's as its parent", async () => {
    const { grpcAddress } = await startService();
    const active: unknown[] = [];
    class Orders {
      @OnFeedEvent('orders', { from: 'earliest' })
      onOrder(event: Event): void {
        active.push([event.id, trace.getActiveSpan()?.spanContext().traceId]);
      }
    }
    await startHandlers(grpcAddress, Orders);
    const producer = await within(() => client(grpcAddress).upload('orders', [{ id: 'a' }]));
    const handled = () =>
      exporter.getFinishedSpans().find((span) => span.name === 'process orders');
    await until(() => handled() !== undefined, 'the span of the handler');
    expect(handled()).toMatchObject({
      kind: SpanKind.CONSUMER,
      attributes: { 'messaging.message.id': 'a' },
    });
    expect(handled()!.parentSpanContext?.spanId).toBe(producer.spanContext().spanId);
    expect(active).toEqual([['a', producer.spanContext().traceId]]);
  });

  test('an event keeps the trace that it has, and gets that of the span in which its source gives it', async () => {
    const { grpcAddress } = await startService();
    const feed = client(grpcAddress);
    const other = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    let given = '';
    async function* source() {
      yield { id: 'a', attributes: { traceparent: other, k: 'v' } };
      yield await trace.getTracer('test').startActiveSpan('request', async (span) => {
        given = span.spanContext().traceId;
        const carrier: Record<string, string> = {};
        propagation.inject(context.active(), carrier);
        span.end();
        return { id: 'b', attributes: carrier };
      });
      yield 'c';
    }
    const producer = await within(() => feed.upload('t', source()));
    const [a, b, c] = await take(feed.watch('t', { from: 'earliest' }), 3);
    expect(a.attributes).toEqual({ traceparent: other, k: 'v' });
    expect(b.attributes.traceparent).toContain(given);
    expect(c.attributes.traceparent).toContain(producer.spanContext().spanId);
  });

  test('calls carry the trace that they are made in', async () => {
    const server = await ScriptedServer.start(events('x'));
    const producer = await within(() => take(client(server.address).watch('t'), 1));
    expect(server.calls[0].traceparent).toContain(producer.spanContext().spanId);
  });

  test('a handler that fails marks its span, and its error goes on', async () => {
    const event = { id: 'a', topic: 't', body: '', at: undefined, cursor: '', attributes: {} };
    const fails = handleInTrace(event, () => Promise.reject(new Error('no stock')));
    await expect(fails).rejects.toThrow('no stock');
    expect(exporter.getFinishedSpans()[0].status.code).toBe(SpanStatusCode.ERROR);
  });
});
