import { connect as connectTcp } from 'node:net';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { endedByOperator } from '../../src/feed/errors.js';
import { LiveCalls } from '../../src/feed/live-calls.js';
import { OpenWork } from '../../src/feed/open-work.js';
import { type Running, runService } from '../support/service.js';
import { take, upload } from '../support/client.js';
import { ask, EventStream } from '../support/http.js';
import { scrape } from '../support/metrics.js';
import { eventually, standstill, until } from '../support/wait.js';

const NDJSON = { accept: 'application/x-ndjson' };

const event = (body: string, topic = 'orders') => ({ topic, id: body, body });

async function start(settings: Record<string, string> = {}): Promise<Running> {
  return runService({ FEED_ENGINE: 'memory', ...settings });
}

/** Opens a watch that is sent more than the kernel takes while nobody reads it. */
async function openUnread({ httpAddress, client, app }: Running) {
  const stream = await EventStream.open(httpAddress, 'topic=orders');
  stream.pause();
  const large = Array.from({ length: 20_000 }, (_, i) => event(`${i}`.padEnd(1_000, '.')));
  await upload(client, large);
  const [call] = app.get(LiveCalls);
  // The kernel takes some megabytes, and no more.
  const sent = await standstill(() => call.events);
  expect(sent).toBeLessThan(large.length);
  return { stream, call, sent };
}

describe('GET /v1/events', () => {
  test('sends what a watch over gRPC gets: at once where it begins, then each event with its cursor', async () => {
    const service = await start();
    const stream = await EventStream.open(service.httpAddress, 'topic=orders');
    await until(() => stream.blocks.length === 1, 'the first block');
    const { 'feed-head': head, 'feed-start': from } = stream.headers;
    expect(from).toBe(head);
    expect(stream.blocks[0]).toEqual({ retry: expect.stringMatching(/^1\d{3}$|^2000$/), id: head });
    expect(stream.headers).toMatchObject({
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    });

    const at = { seconds: 1769850000, nanos: 120_000_000 };
    const attributes = { traceparent: 'x"y' };
    await upload(service.client, [
      { topic: 'orders', id: 'a', body: 'two\nlines "quoted" \u2028 é 🎉', at, attributes },
      event('b'),
    ]);
    await stream.has(2);
    const [first, second] = await take(service.client, { topic: 'orders', position: 1 }, 2);
    expect(stream.blocks.slice(1).map(({ id }) => id)).toEqual([first.cursor, second.cursor]);
    expect(stream.blocks[1].data).toBe(
      `{"id":"a","topic":"orders","body":"two\\nlines \\"quoted\\" \u2028 é 🎉","at":"2026-01-31T09:00:00.120Z",` +
        `"cursor":"${first.cursor}","attributes":{"traceparent":"x\\"y"}}`,
    );
    expect(stream.events[1]).toMatchObject({ id: 'b', topic: 'orders', body: 'b' });
    expect(stream.events[1]).not.toHaveProperty('attributes');
  });

  test('sends a line for each event where only NDJSON is accepted, and no sign of life unasked', async () => {
    const service = await start();
    await upload(service.client, [event('a'), event('b')]);
    const quiet = await EventStream.open(service.httpAddress, 'topic=orders&from=earliest', NDJSON);
    const asked = await EventStream.open(service.httpAddress, 'topic=orders&heartbeat=1s', NDJSON);
    await quiet.has(2);
    expect(quiet.headers['content-type']).toBe('application/x-ndjson');
    expect(quiet.events.map(({ body }) => body)).toEqual(['a', 'b']);
    await asked.has(1);
    expect(asked.events[0]).toEqual({ topic: 'orders', cursor: quiet.events[1].cursor });
    expect(quiet.blocks).toHaveLength(2);
  });

  test.each([
    ['APPLICATION/X-NDJSON', 'application/x-ndjson'],
    ['application/x-ndjson; charset=UTF-8', 'application/x-ndjson'],
    ['text/event-stream;q=0.5, application/x-ndjson', 'application/x-ndjson'],
    ['application/x-ndjson, */*;q=0.1', 'application/x-ndjson'],
    ['application/x-ndjson;q=0', 'text/event-stream'],
    ['application/x-ndjson;q=0.5, text/event-stream', 'text/event-stream'],
    ['application/x-ndjson;q=0, */*', 'text/event-stream'],
    ['application/x-ndjson-other', 'text/event-stream'],
    ['*/*', 'text/event-stream'],
    ['text/html', 'text/event-stream'],
    ['', 'text/event-stream'],
  ])('accept: %s gets %s', async (accept, type) => {
    const service = await start();
    const stream = await EventStream.open(service.httpAddress, 'topic=orders', { accept });
    expect(stream.headers['content-type']).toBe(type);
  });

  test('starts as asked', async () => {
    const service = await start();
    await upload(service.client, [event('a'), event('b'), event('c')]);
    const [{ cursor }] = await take(service.client, { topic: 'orders', position: 1 }, 1);
    const found = async (query: string, headers = {}) => {
      const stream = await EventStream.open(service.httpAddress, `topic=orders&${query}`, headers);
      await upload(service.client, [event('later', 'other')]);
      await upload(service.client, [event(`end of ${query}${JSON.stringify(headers)}`)]);
      await until(() => stream.events.some(({ body }) => body.startsWith('end')), 'the end');
      stream.close();
      return stream.events.map(({ body }) => body.slice(0, 3)).filter((body) => body !== 'end');
    };
    expect(await found('last=1')).toEqual(['c']);
    expect(await found(`after=${cursor}`)).toEqual(['b', 'c']);
    expect(await found('from=earliest')).toEqual(['a', 'b', 'c']);
    expect(await found('since=2020-01-01T00:00:00Z')).toEqual(['a', 'b', 'c']);
    expect(await found('since=2020-01-01T02:00:00.5%2B02:00')).toEqual(['a', 'b', 'c']);
    expect(await found('from=live')).toEqual([]);
    expect(await found('last=0')).toEqual([]);
    expect(await found('after=')).toEqual([]);
    expect(await found('')).toEqual([]);
    // What a browser says when it connects again wins over what its page has asked for first.
    expect(await found('from=earliest', { 'last-event-id': cursor })).toEqual(['b', 'c']);
    expect(await found('from=earliest', { 'last-event-id': '' })).toEqual(['a', 'b', 'c']);
  });

  test('answers HEAD with 405, which would be a watch that nobody can read', async () => {
    const service = await start();
    const answer = await ask(service.httpAddress, '/v1/events?topic=orders', { method: 'HEAD' });
    expect(answer.status).toBe(405);
    expect(service.app.get(OpenWork).counts.watches).toBe(0);
  });

  test('many topics and patterns are one watch with one cursor', async () => {
    const service = await start();
    const topics = 'topic=orders.*.paid&topic=audit&topic=%3E';
    const stream = await EventStream.open(service.httpAddress, topics);
    await upload(service.client, [
      event('a', 'orders.1.paid'),
      event('b', 'audit'),
      event('c', 'else'),
    ]);
    await stream.has(3);
    expect(stream.events.map(({ topic }) => topic)).toEqual(['orders.1.paid', 'audit', 'else']);
    const some = await EventStream.open(service.httpAddress, 'topic=orders.%3E&topic=audit', {
      'last-event-id': stream.events[0].cursor,
    });
    await some.has(1);
    expect(some.events.map(({ body }) => body)).toEqual(['b']);
  });

  test('goes past what was removed where that is asked for', async () => {
    const service = await start({ FEED_RETENTION_TOPIC_MAX_BYTES: '1KiB' });
    const large = Array.from({ length: 40 }, (_, i) => event(`${i}`.padEnd(500, '.')));
    await upload(service.client, large.slice(0, 1));
    const [{ cursor }] = await take(service.client, { topic: 'orders', position: 1 }, 1);
    for (const one of large) await upload(service.client, [one]);
    const query = `topic=orders&after=${cursor}`;
    expect((await ask(service.httpAddress, `/v1/events?${query}`)).status).toBe(410);
    const stream = await EventStream.open(service.httpAddress, `${query}&skipRemoved=true`);
    await until(() => stream.events.at(-1)?.body === large.at(-1)?.body, 'the newest event');
  });

  test('moves the cursor in silence', async () => {
    const service = await start();
    const stream = await EventStream.open(service.httpAddress, 'topic=orders&heartbeat=1s');
    await upload(service.client, [event('a', 'other')]);
    const [{ cursor }] = await take(service.client, { topic: 'other', position: 1 }, 1);
    await until(() => stream.blocks.at(-1)?.id === cursor, 'a bare id of what came since');
    expect(stream.blocks.at(-1)).toEqual({ id: cursor });
  });

  test.each([
    ['', 400, 'REQUEST_INVALID'],
    ['topic=', 400, 'TOPIC_INVALID'],
    ['topic=a..b', 400, 'TOPIC_INVALID'],
    ['topic=a&after=x', 400, 'CURSOR_INVALID'],
    ['topic=a&after=0000000001fc406w', 409, 'EPOCH_CHANGED'],
    ['topic=a&from=sometime', 400, 'REQUEST_INVALID'],
    ['topic=a&from=earliest&last=1', 400, 'REQUEST_INVALID'],
    ['topic=a&last=-1', 400, 'REQUEST_INVALID'],
    ['topic=a&last=4294967296', 400, 'REQUEST_INVALID'],
    ['topic=a&last=1&last=2', 400, 'REQUEST_INVALID'],
    ['topic=a&since=2026-02-31T00:00:00Z', 400, 'START_INVALID'],
    ['topic=a&since=yesterday', 400, 'START_INVALID'],
    ['topic=a&heartbeat=500ms', 400, 'HEARTBEAT_INVALID'],
    ['topic=a&heartbeat=15', 400, 'HEARTBEAT_INVALID'],
    ['topic=a&start=1', 400, 'REQUEST_INVALID'],
    ['topic=a&skipRemoved=1', 400, 'REQUEST_INVALID'],
    ['topic=a&topic=a', 400, 'TOPIC_INVALID'],
    ['topic=a.>.b', 400, 'TOPIC_INVALID'],
    [Array.from({ length: 1_001 }, (_, i) => `topic=${i}`).join('&'), 400, 'TOPIC_INVALID'],
    ['topic=%ff%fe', 400, 'REQUEST_INVALID'],
    ['topic=%ED%A0%80', 400, 'REQUEST_INVALID'],
    ['topic=%zz', 400, 'REQUEST_INVALID'],
  ])('%s is refused with %i %s', async (query, status, reason) => {
    const { httpAddress } = await start();
    const answer = await ask(httpAddress, `/v1/events?${query}`);
    expect(answer.status).toBe(status);
    expect(answer.headers['content-type']).toBe('application/problem+json');
    expect(answer.json).toMatchObject({ type: 'about:blank', status, reason });
  });

  test('a cursor whose events are gone, or that is ahead, is refused with 410 and where to go on', async () => {
    const service = await start({ FEED_RETENTION_TOPIC_MAX_BYTES: '1KiB' });
    const large = Array.from({ length: 40 }, (_, i) => event(`${i}`.padEnd(500, '.')));
    await upload(service.client, large.slice(0, 2));
    const [{ cursor }] = await take(service.client, { topic: 'orders', position: 1 }, 1);
    for (const one of large) await upload(service.client, [one]);
    const expired = await ask(service.httpAddress, `/v1/events?topic=orders&after=${cursor}`);
    expect(expired.status).toBe(410);
    expect(expired.json).toMatchObject({ reason: 'CURSOR_EXPIRED', title: 'Gone' });
    const { earliest, head } = expired.json as { earliest: string; head: string };
    const again = await EventStream.open(service.httpAddress, `topic=orders&after=${earliest}`);
    expect(again.status).toBe(200);
    const ahead = `000000zzzz${head.slice(10)}`;
    const refused = await ask(service.httpAddress, `/v1/events?topic=orders&after=${ahead}`);
    expect(refused.status).toBe(410);
    expect(refused.json).toMatchObject({ reason: 'CURSOR_AHEAD', head });
  });

  test('is counted among the watches: listed, limited, logged, and gone with its client', async () => {
    const service = await start({ FEED_MAX_WATCHES: '1' });
    const stream = await EventStream.open(service.httpAddress, 'topic=orders', {
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    });
    await upload(service.client, [event('a')]);
    await stream.has(1);
    const [call] = service.app.get(LiveCalls);
    expect(call).toMatchObject({ method: '/http/Watch', events: 1, endless: true });
    const page = await scrape(service.httpAddress);
    expect(page.value('feed_open_streams', { method: 'Watch' })).toBe(1);
    const refused = await ask(service.httpAddress, '/v1/events?topic=orders');
    expect(refused.status).toBe(429);
    expect(refused.json).toMatchObject({
      reason: 'LIMIT_EXCEEDED',
      limit: 'FEED_MAX_WATCHES',
      most: '1',
    });
    stream.close();
    await eventually(() => expect(service.app.get(OpenWork).counts.watches).toBe(0));
    const line = await eventually(() => {
      const found = service.log.find(
        ({ msg, status }) => msg === 'call ended' && status === 'CANCELLED',
      );
      expect(found).toBeDefined();
      return found;
    });
    expect(line).toMatchObject({
      context: 'HTTP',
      method: '/http/Watch',
      topic: 'orders',
      events: 1,
      traceId: '0af7651916cd43dd8448eb211c80319c',
    });
    expect([...service.app.get(LiveCalls)]).toEqual([]);
  });

  test('a reason in mid-stream is sent as an event, and then the stream ends', async () => {
    const service = await start();
    const sse = await EventStream.open(service.httpAddress, 'topic=orders');
    const lines = await EventStream.open(service.httpAddress, 'topic=orders', NDJSON);
    await upload(service.client, [event('a')]);
    await Promise.all([sse.has(1), lines.has(1)]);
    for (const call of service.app.get(LiveCalls)) call.abort(endedByOperator());
    await Promise.all([sse.ended(), lines.ended()]);
    const { cursor } = sse.events[0];
    const expected = { status: 409, reason: 'ENDED_BY_OPERATOR', cursor };
    expect(sse.problem).toMatchObject(expected);
    expect(sse.blocks.at(-1)).toMatchObject({ id: cursor, event: 'feed-error' });
    expect(sse.blocks.at(-1)).not.toHaveProperty('retry');
    expect(lines.problem).toMatchObject(expected);
  });

  test('a reader that is behind gets whole events up to the cursor of the reason', async () => {
    const { stream, call, sent } = await openUnread(await start());
    call.abort(endedByOperator());
    stream.resume();
    await stream.ended();
    expect(stream.problem).toMatchObject({ reason: 'ENDED_BY_OPERATOR' });
    expect(stream.events.at(-1)?.cursor).toBe(stream.problem?.cursor);
    expect(stream.events).toHaveLength(sent);
  });

  test('a reader that reads nothing of the reason is closed', async () => {
    const service = await start();
    const { call } = await openUnread(service);
    call.abort(endedByOperator());
    const isOver = (): boolean => [...service.app.get(LiveCalls)].length === 0;
    await until(isOver, 'the end of the call', 100_000); // a minute, and half of another one
  }, 150_000);

  test('an answer that waits behind a watch on its connection does not end the watch', async () => {
    const { httpAddress, client, log } = await start();
    // A request looks once a minute whether its answer is read.
    vi.useFakeTimers({ toFake: ['setInterval'] });
    onTestFinished(() => void vi.useRealTimers());
    const [host, port] = httpAddress.split(':');
    const socket = connectTcp(Number(port), host);
    onTestFinished(() => void socket.destroy());
    let received = '';
    socket.on('error', () => {}).on('data', (data) => (received += data.toString()));
    const paths = ['/v1/events?topic=orders', '/v1/topics'];
    socket.write(
      paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: ${httpAddress}\r\n\r\n`).join(''),
    );
    await until(() => log.some(({ msg }) => msg === 'call ended'), 'the end of the second request');
    await until(() => received.includes('200 OK'), 'the beginning of the watch');
    vi.advanceTimersByTime(200_000);
    await upload(client, [event('after three minutes')]);
    await until(() => socket.closed || received.includes('after three minutes'), 'the event');
    expect(socket.closed).toBe(false);
  });

  test('at a drain, ends open streams with DRAINING and when to come back, refuses others, and answers probes', async () => {
    const service = await start({ FEED_DRAIN_TIMEOUT: '1m', FEED_UPLOAD_EVENTS_PER_SECOND: '1' });
    const { httpAddress, client } = service;
    const stream = await EventStream.open(httpAddress, 'topic=orders');
    // An upload that is held back keeps the drain waiting, before it ends the watches.
    const slow = client.UploadEvents(() => {});
    for (let i = 0; i < 60; i++) slow.write(event(`${i}`));
    await stream.has(1);
    const closed = service.app.close();
    // A stream that is opened a moment earlier goes on until the end of the drain.
    await eventually(async () => {
      const early = await EventStream.open(httpAddress, 'topic=orders');
      early.close();
      expect(early.status).toBe(503);
    });
    const refused = await ask(httpAddress, '/v1/events?topic=orders');
    expect(refused.status).toBe(503);
    expect(refused.json).toMatchObject({ reason: 'DRAINING' });
    expect(refused.headers['retry-after']).toMatch(/^\d+$/);
    expect((await ask(httpAddress, '/healthz')).status).toBe(200);
    expect((await ask(httpAddress, '/readyz')).status).toBe(503);
    // A browser that connects again would stop for good at any status but 200.
    const again = await EventStream.open(httpAddress, 'topic=orders', {
      'last-event-id': stream.events[0].cursor,
    });
    await again.ended();
    expect(again.status).toBe(200);
    expect(again.problem).toMatchObject({ reason: 'DRAINING', status: 503 });
    expect(stream.hasEnded).toBe(false);

    slow.cancel();
    await stream.ended();
    const { cursor } = stream.problem as { cursor: string };
    expect(stream.problem).toMatchObject({ reason: 'DRAINING', status: 503 });
    expect(stream.blocks.at(-1)).toMatchObject({
      id: cursor,
      retry: expect.stringMatching(/^\d{4}$/),
    });
    await closed;
  });

  test('over the limit of watches, says when to come back: a browser that connects again must not stop for good', async () => {
    const { httpAddress } = await start({ FEED_MAX_WATCHES: '1' });
    const first = await EventStream.open(httpAddress, 'topic=orders');
    const refused = await ask(httpAddress, '/v1/events?topic=orders');
    expect(refused.status).toBe(429);
    expect(refused.json).toMatchObject({ reason: 'LIMIT_EXCEEDED' });
    expect(refused.headers['retry-after']).toMatch(/^\d+$/);
    const again = await EventStream.open(httpAddress, 'topic=orders', {
      'last-event-id': first.headers['feed-start'] as string,
    });
    await again.ended();
    expect(again.status).toBe(200);
    expect(again.problem).toMatchObject({ reason: 'LIMIT_EXCEEDED', status: 429 });
    expect(again.blocks.at(-1)).toMatchObject({ retry: expect.stringMatching(/^\d{4}$/) });
  });
});
