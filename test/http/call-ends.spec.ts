import { expect, onTestFinished, test, vi } from 'vitest';
import { endedByOperator } from '../../src/feed/errors.js';
import { LiveCalls } from '../../src/feed/live-calls.js';
import { Streams, type StreamView } from '../../src/feed/streams.js';
import { Topics } from '../../src/feed/topics.js';
import { ROUTES } from '../../src/http/routes.js';
import { upload } from '../support/client.js';
import { ask, EventStream, openAnswer, type Sent } from '../support/http.js';
import { scrape } from '../support/metrics.js';
import { type Running, runService } from '../support/service.js';
import { Issuer } from '../support/tokens.js';
import { eventually, until } from '../support/wait.js';

/** How the calls of a service have ended, in order, such as `/http/GetTopic OK`. */
const endsOf = ({ log }: Running): string[] =>
  log
    .filter(({ msg }) => msg === 'call ended')
    .map(({ method, status }) => `${String(method)} ${String(status)}`);

/** Has the list of open streams take 30 MB, which no kernel takes unread, and makes the parts of it that are asked for. */
function listLong({ app }: Running) {
  const counts = { parts: 0, isOver: false };
  const view: StreamView = {
    id: 'aaaaaa-1',
    method: '/http/Watch',
    principal: 'p'.repeat(30_000),
    peer: '127.0.0.1:1',
    topics: [],
    startedAt: 0,
    events: 0,
    bytes: 0,
    behind: undefined,
  };
  vi.spyOn(app.get(Streams), 'list').mockImplementation(async function* () {
    try {
      for (; counts.parts < 1_000; counts.parts++) yield await Promise.resolve([view]);
    } finally {
      counts.isOver = true;
    }
  });
  return counts;
}

/** Asks for a long list of streams, of which the client reads the beginning. */
async function beginLongList() {
  const service = await runService({ FEED_ENGINE: 'memory' });
  const counts = listLong(service);
  const response = await openAnswer(service.httpAddress, '/v1/streams');
  onTestFinished(() => void response.destroy());
  await until(() => counts.parts > 10, 'the beginning of the list');
  const [call] = service.app.get(LiveCalls);
  return { service, counts, response, call };
}

test('a request of each path that is served ends with OK in the log and the metrics', async () => {
  const issuer = await Issuer.create();
  const token = await issuer.token();
  const service = await runService({
    FEED_ENGINE: 'memory',
    FEED_METRICS_ADDRESS: '127.0.0.1:0',
    ...issuer.settings(),
  });
  const { httpAddress } = service;
  const headers = { authorization: `Bearer ${token}` };
  const json = { ...headers, 'content-type': 'application/json' };
  const bodies: Record<string, Sent> = {
    uploadEvents: { headers: json, body: '{"topic":"a","body":"b"}' },
    beginSession: { headers: json, body: JSON.stringify({ token }) },
  };
  const stream = await EventStream.open(httpAddress, 'topic=a', headers);
  const { streams } = (await ask(httpAddress, '/v1/streams', { headers })).json as {
    streams: { id: string }[];
  };
  const expected = ['/http/ListStreams OK'];
  // A watch has no end of its own, and the document is no call.
  for (const route of ROUTES) {
    const { method, path, name, answer } = route;
    if (name === 'watch' || name === 'readOpenApi') continue;
    const at = path.replace('{topic}', 'a').replace('{id}', streams[0].id);
    const sent = { method: method.toUpperCase(), headers, ...bodies[name] };
    expect([name, (await ask(httpAddress, at, sent)).status]).toEqual([name, answer.status]);
    expected.push(`/http/${name[0].toUpperCase()}${name.slice(1)} OK`);
    if (name === 'endStream') expected.push('/http/Watch ABORTED');
    if (method !== 'get') continue;
    expect((await ask(httpAddress, at, { ...sent, method: 'HEAD' })).status).toBe(200);
    expected.push(expected.at(-1)!);
  }
  await eventually(() => expect(endsOf(service).toSorted()).toEqual(expected.toSorted()));
  expect(stream.problem).toMatchObject({ reason: 'ENDED_BY_OPERATOR' });
  const page = await scrape(service.metricsAddress!);
  const counted = (status: string) =>
    page.value('feed_calls_total', { method: 'ListStreams', status, reason: '' });
  expect([counted('OK'), counted('CANCELLED')]).toEqual([3, undefined]);
});

test('a long answer ends with OK once a slow client has read it', async () => {
  const { service, counts, response } = await beginLongList();
  expect(counts.isOver).toBe(false);
  let text = '';
  for await (const part of response.setEncoding('utf8')) text += part as string;
  expect((JSON.parse(text) as { streams: unknown[] }).streams).toHaveLength(1_000);
  await eventually(() => expect(endsOf(service)).toEqual(['/http/ListStreams OK']));
  expect([...service.app.get(LiveCalls)]).toEqual([]);
});

test('a long answer whose client goes away ends with CANCELLED, and what made it ends', async () => {
  const { service, counts, response } = await beginLongList();
  response.destroy();
  await eventually(() => expect(endsOf(service)).toEqual(['/http/ListStreams CANCELLED']));
  await until(() => counts.isOver, 'the end of the list');
  expect(counts.parts).toBeLessThan(1_000);
  expect([...service.app.get(LiveCalls)]).toEqual([]);
});

test('a long answer that the service ends has the reason in the log, and its connection closes', async () => {
  const { service, counts, response, call } = await beginLongList();
  call.abort(endedByOperator());
  await eventually(() => expect(endsOf(service)).toEqual(['/http/ListStreams ABORTED']));
  await until(() => counts.isOver, 'the end of the list');
  response.on('error', () => {}).resume();
  await until(() => response.destroyed, 'the end of the connection');
  expect(response.complete).toBe(false);
  await until(() => [...service.app.get(LiveCalls)].length === 0, 'the end of the call');
});

test('an answer in one piece closes its connection, if its client reads nothing', async () => {
  // An answer that is over is looked at each minute, whether its client reads.
  vi.useFakeTimers({ toFake: ['setInterval'] });
  onTestFinished(() => void vi.useRealTimers());
  const { app, httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  // No kernel takes so much unread.
  const page = { topics: [], next: 'n'.repeat(30_000_000) };
  vi.spyOn(app.get(Topics), 'list').mockResolvedValue(page);
  const response = await openAnswer(httpAddress, '/v1/topics');
  onTestFinished(() => void response.destroy());
  const open = (): number => [...app.get(LiveCalls)].length;
  expect(open()).toBe(1);
  vi.advanceTimersByTime(130_000);
  await until(() => open() === 0, 'the end of the call');
});

test('a watch that has ended amid an event whose text is long closes, if its client reads nothing', async () => {
  // A call that is over looks each minute whether its client reads.
  vi.useFakeTimers({ toFake: ['setInterval'] });
  onTestFinished(() => void vi.useRealTimers());
  const { app, client, httpAddress } = await runService({ FEED_ENGINE: 'memory' });
  expect((await upload(client, [{ topic: 'a', body: '\u0001'.repeat(1_000_000) }])).error).toBe(
    undefined,
  );
  const response = await openAnswer(httpAddress, '/v1/events?topic=a&from=earliest');
  onTestFinished(() => void response.destroy());
  const call = [...app.get(LiveCalls)].find(({ method }) => method === '/http/Watch')!;
  await until(() => call.events === 1, 'the event');
  call.abort(endedByOperator());
  vi.advanceTimersByTime(130_000);
  await until(() => [...app.get(LiveCalls)].length === 0, 'the end of the watch');
});
