import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { status } from '@grpc/grpc-js';
import { expect, onTestFinished, test } from 'vitest';
import { frame } from '../../src/wire/frames.js';
import { codec, upload } from '../support/client.js';
import { Collector } from '../support/collector.js';
import { ask, EventStream } from '../support/http.js';
import { RawClient } from '../support/raw-client.js';
import { freePort } from '../support/ports.js';
import { type Running, runService } from '../support/service.js';
import { eventually, until } from '../support/wait.js';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const SPAN = 'b7ad6b7169203331';
const parent = (flags: string) => `00-${TRACE}-${SPAN}-${flags}`;

const event = (id: string) => frame(codec.event.serialize({ topic: 'orders', id, body: 'x' }));

/** Uploads two events in a call with these headers, and waits for its result. */
async function uploadWith(
  { grpcAddress }: Running,
  headers: Record<string, string>,
): Promise<void> {
  const raw = await RawClient.connect(grpcAddress);
  const call = raw.open('UploadEvents', headers).drop();
  call.stream.end(Buffer.concat([event('a'), event('b')]));
  await call.trailers;
  raw.close();
}

const endedIn = (log: Running['log']) => log.filter(({ msg }) => msg === 'call ended');

test('a call is a span in the trace of its caller, with its milestones, and its line in the log has the trace', async () => {
  const collector = await Collector.start();
  const service = await runService({
    FEED_ENGINE: 'memory',
    FEED_OTLP_ENDPOINT: collector.url,
    FEED_TRACES_PERCENT: '0',
  });
  await uploadWith(service, { traceparent: parent('01') });
  const raw = await RawClient.connect(service.grpcAddress);
  onTestFinished(() => raw.close());
  const watch = raw.open('Watch', { traceparent: parent('01') });
  watch.stream.end(frame(codec.watchRequest.serialize({ topic: 'orders', position: 1 })));
  await once(watch.drop().stream, 'data');
  // The watch has sent all there is, and waits.
  await uploadWith(service, {});
  watch.stream.close(8);
  await until(() => collector.spans.length === 2, 'two spans');
  const [uploaded, watched] = collector.spans;
  expect(uploaded).toMatchObject({
    name: 'feed.v1.FeedService/UploadEvents',
    traceId: TRACE,
    parentSpanId: SPAN,
    kind: 2,
    attributes: {
      'rpc.system': 'grpc',
      'rpc.service': 'feed.v1.FeedService',
      'rpc.method': 'UploadEvents',
      'rpc.grpc.status_code': status.OK,
      'feed.topic': 'orders',
      'feed.events': 2,
    },
  });
  expect(uploaded.events.map(({ name }) => name)).toEqual(['first event', 'last event', 'stored']);
  expect(uploaded.spanId).not.toBe(SPAN);
  expect(watched).toMatchObject({
    name: 'feed.v1.FeedService/Watch',
    traceId: TRACE,
    parentSpanId: SPAN,
    attributes: { 'rpc.grpc.status_code': status.CANCELLED, 'feed.topic': 'orders' },
  });
  expect(watched.events.map(({ name }) => name)).toEqual(['first event', 'caught up']);
  expect(watched.status.code ?? 0).toBe(0);
  expect(collector.resource['service.name']).toBe('feed');
  expect([...collector.paths]).toEqual(['/v1/traces']);
  // The upload without a header is traced by nobody, because no call is by itself.
  await eventually(() =>
    expect(endedIn(service.log).map(({ traceId }) => traceId)).toEqual([TRACE, undefined, TRACE]),
  );
});

test("a chat's span has the client's first and last message", async () => {
  const collector = await Collector.start();
  const service = await runService({ FEED_ENGINE: 'memory', FEED_OTLP_ENDPOINT: collector.url });
  const raw = await RawClient.connect(service.grpcAddress);
  onTestFinished(() => raw.close());
  const chat = raw.open('Chat').drop();
  const message = frame(codec.chatMessage.serialize({ text: 'x' }));
  chat.stream.end(Buffer.concat([message, message]));
  await chat.trailers;
  await until(() => collector.spans.length === 1, 'the span');
  const [{ name, events }] = collector.spans;
  expect(name).toBe('feed.v1.FeedService/Chat');
  expect(events.map((one) => one.name)).toEqual(['first message', 'last message']);
});

test('a call over HTTP is a span, too, with its milestones', async () => {
  const collector = await Collector.start();
  const service = await runService({ FEED_ENGINE: 'memory', FEED_OTLP_ENDPOINT: collector.url });
  await upload(service.client, [{ topic: 'orders', body: 'x' }]);
  const stream = await EventStream.open(service.httpAddress, 'topic=orders&from=earliest', {
    traceparent: parent('01'),
  });
  await stream.has(1);
  await ask(service.httpAddress, '/v1/topics/a..b');
  stream.close();
  await until(() => collector.spans.length === 3, 'the spans');
  const watched = collector.spans.find(({ name }) => name === 'http/Watch')!;
  expect(watched).toMatchObject({
    traceId: TRACE,
    parentSpanId: SPAN,
    kind: 2,
    attributes: {
      'http.request.method': 'GET',
      'url.path': '/v1/events',
      'http.response.status_code': 200,
      'feed.topic': 'orders',
      'feed.events': 1,
    },
  });
  expect(watched.events.map(({ name }) => name)).toEqual(['first event', 'caught up']);
  const refused = collector.spans.find(({ name }) => name === 'http/GetTopic')!;
  expect(refused.attributes).toMatchObject({
    'http.response.status_code': 400,
    'feed.reason': 'TOPIC_INVALID',
  });
});

test('a caller that has nothing recorded has no spans here, and a call without a caller has a trace of its own', async () => {
  const collector = await Collector.start();
  const service = await runService({ FEED_ENGINE: 'memory', FEED_OTLP_ENDPOINT: collector.url });
  await uploadWith(service, { traceparent: parent('00') });
  await uploadWith(service, {});
  await uploadWith(service, { traceparent: 'nonsense' });
  await until(() => collector.spans.length === 2, 'two spans');
  const ids = collector.spans.map(({ traceId }) => traceId);
  expect(new Set([...ids, TRACE]).size).toBe(3);
  expect(collector.spans.map(({ parentSpanId }) => parentSpanId ?? '')).toEqual(['', '']);
  expect(endedIn(service.log).map(({ traceId }) => traceId)).toEqual([TRACE, ...ids]);
});

test('without a collector nothing is traced, and the log has the trace of the caller all the same', async () => {
  const service = await runService({ FEED_ENGINE: 'memory' });
  await uploadWith(service, { traceparent: parent('01') });
  await uploadWith(service, {});
  expect(endedIn(service.log).map(({ traceId }) => traceId)).toEqual([TRACE, undefined]);
});

test('spans that are left at the end are sent, with why their calls failed', async () => {
  const collector = await Collector.start();
  const service = await runService({ FEED_ENGINE: 'memory', FEED_OTLP_ENDPOINT: collector.url });
  const call = service.client.Watch({ topic: 'orders' });
  call.on('error', () => {}).resume();
  await once(call, 'metadata');
  await service.app.close();
  expect(collector.spans).toMatchObject([
    { status: { code: 2 }, attributes: { 'feed.reason': 'DRAINING' } },
  ]);
});

test('a collector that is away costs the calls nothing, and is logged once', async () => {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const service = await runService({ FEED_ENGINE: 'memory', FEED_OTLP_ENDPOINT: url });
  const send = () => upload(service.client, [{ topic: 'orders', body: 'x' }]);
  const lines = (text: string) =>
    service.log.filter(({ msg }) => String(msg).startsWith(`traces ${text}`));
  expect((await send()).error).toBeUndefined();
  await until(() => lines("can't be sent").length === 1, 'the line', 60_000);
  // It is there again, and takes nothing yet.
  const collector = await Collector.start(port);
  collector.status = 400;
  const sendUntil = (holds: () => boolean, what: string) =>
    until(
      async () => {
        expect((await send()).error).toBeUndefined();
        return holds();
      },
      what,
      60_000,
      200,
    );
  await sendUntil(() => collector.refusals >= 2, 'two batches that are refused');
  collector.status = 200;
  await sendUntil(() => collector.spans.length > 0, 'spans');
  await eventually(() => expect(lines('are sent')).toHaveLength(1));
  expect(lines("can't be sent")).toHaveLength(1);
});

test('a collector whose answers never end does not hold up the end of the service', async () => {
  const collector = await Collector.start();
  collector.isEndless = true;
  const service = await runService({ FEED_ENGINE: 'memory', FEED_OTLP_ENDPOINT: collector.url });
  await uploadWith(service, {});
  await until(() => collector.spans.length === 1, 'the span');
  await service.app.close();
}, 60_000);

test('a collector that drops all packets is logged, and does not hold up the end of the service', async () => {
  const service = await runService({
    FEED_ENGINE: 'memory',
    FEED_OTLP_ENDPOINT: `http://127.0.0.1:${await deafPort()}`,
  });
  await uploadWith(service, {});
  const isLogged = () =>
    service.log.some(({ msg }) => String(msg).startsWith("traces can't be sent"));
  await until(isLogged, 'the line', 60_000);
  await uploadWith(service, {});
  await service.app.close();
});

/** Returns a port whose process takes no connections, and whose queue of them is full: the kernel drops all packets of more. */
async function deafPort(): Promise<number> {
  const listen = `const s = require('net').createServer().listen(0, '127.0.0.1', 1, () => console.log(s.address().port))`;
  const child = spawn(process.execPath, ['-e', listen], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const [port] = (await once(child.stdout, 'data')) as [Buffer];
  child.kill('SIGSTOP');
  for (let i = 0; i < 4; i++) {
    const socket = connect(Number(port), '127.0.0.1').on('error', () => {});
    onTestFinished(() => void socket.destroy());
  }
  return Number(port);
}
