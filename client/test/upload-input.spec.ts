import { expect, onTestFinished, test, vi } from 'vitest';
import { type Source, UploadError } from '@feed-events/client';
import { within } from '../../test/support/wait.js';
import { type Answer, beginUpload, reset, ScriptedServer, storeUpload } from './scripted-server.js';
import { bodies, client, numbers, Subject, take } from './service.js';

test.each([
  ['null', null],
  ['a number', 42],
  ['bytes', Buffer.from('text')],
  ['a list', ['a']],
  ['an event whose body is bytes', { body: Buffer.from('text') }],
  ['an event whose body is a number', { body: 1 }],
  ['an event whose id is a number', { id: 17, body: 'x' }],
  ['an event with half of a surrogate pair in its id', { id: 'a\ud83c' }],
  ['an event with half of a surrogate pair in its body', { body: 'a\udf89b' }],
  ['a text with half of a surrogate pair', '\ud83c'],
  ['an event whose time is none', { at: new Date(NaN) }],
  ['an event whose time is a text', { at: '2026-01-02' }],
  ['an event whose attributes are a text', { attributes: 'k=v' }],
  ['an event with a Map of attributes', { attributes: new Map([['k', 'v']]) }],
  ['an event with a list of attributes', { attributes: ['k'] }],
  ['an event with a number as attribute', { attributes: { k: 1 } }],
])(
  'a source that yields %s ends the upload there, and nothing is stored in its place',
  async (_, rubbish) => {
    const stored: string[] = [];
    const server = await ScriptedServer.start(storeUpload(stored));
    const source = ['a', rubbish, 'b'] as unknown as Source;
    const failure: unknown = await client(server.address)
      .upload('t', source)
      .catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(UploadError);
    expect(failure).toMatchObject({ status: 'ABORTED', stored: 1, unknown: 0 });
    expect((failure as Error).message).toContain('event 1');
    expect(stored).toEqual(['a']);
  },
);

test('a text is no source: its characters are not meant as events', async () => {
  const server = await ScriptedServer.start(storeUpload([]));
  await expect(client(server.address).upload('t', 'hello')).rejects.toThrow(TypeError);
});

test.each([null, undefined, 42, {}])('%j is no source', async (source) => {
  const upload = client('127.0.0.1:1').upload('t', source as Source);
  await expect(within(upload, 'the error')).rejects.toThrow(
    /^the source of an upload is an iterable or an async iterable/,
  );
});

test('a time since when events are in doubt is a valid one', async () => {
  const doubtful = { events: 1, since: new Date(NaN) };
  const upload = client('127.0.0.1:1').upload('t', ['a'], { doubtful });
  await expect(within(upload, 'the error')).rejects.toThrow('doubtful.since is a valid Date');
});

test.each([0, -1, NaN])('maxUnacknowledgedBytes is not %d', async (maxUnacknowledgedBytes) => {
  const upload = client('127.0.0.1:1').upload('t', ['a'], { maxUnacknowledgedBytes });
  await expect(within(upload, 'the error')).rejects.toThrow(TypeError);
});

test('attributes come back as they went', async () => {
  const { address } = await Subject.start();
  const feed = client(address);
  const attributes = {
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    é: '',
  };
  await feed.upload('t', [{ id: 'a', attributes }, { id: 'b' }]);
  const events = await take(feed.watch('t', { from: 'earliest' }), 2);
  expect(events.map((event) => event.attributes)).toEqual([attributes, {}]);
});

test('an attribute may have a name that objects have already', async () => {
  const { address } = await Subject.start();
  const feed = client(address);
  const attributes = JSON.parse('{"__proto__":"x","constructor":"y"}') as Record<string, string>;
  await feed.upload('t', [{ id: 'a', attributes }]);
  const [event] = await take(feed.watch('t', { from: 'earliest' }), 1);
  expect(Object.entries(event.attributes)).toEqual(Object.entries(attributes));
});

test('a time before 1970 comes back as it went', async () => {
  const { address } = await Subject.start();
  const feed = client(address);
  const times = [-1, -1_500, -86_400_000].map((time) => new Date(time));
  await feed.upload(
    't',
    times.map((at) => ({ at })),
  );
  const events = await take(feed.watch('t', { from: 'earliest' }), 3);
  expect(events.map(({ at }) => at)).toEqual(times);
});

test('an upload with little room goes on as it is acknowledged', async () => {
  const stored: string[] = [];
  const server = await ScriptedServer.start(storeUpload(stored));
  const feed = client(server.address);
  const source = Array.from({ length: 200 }, (_, i) => String(i).padEnd(1_000));
  await within(feed.upload('t', source, { maxUnacknowledgedBytes: 1 }), 'the upload');
  expect(stored).toEqual(source);
});

test('an event of 5 MB is refused by its index, and those before it are stored', async () => {
  const { address } = await Subject.start();
  const feed = client(address);
  const failure: unknown = await feed
    .upload('t', ['a', 'b', 'x'.repeat(5_000_000), 'c'])
    .catch((error: unknown) => error);
  expect(failure).toMatchObject({ reason: 'EVENT_INVALID', stored: 2, unknown: 0, index: 2 });
  expect(bodies(await take(feed.watch('t', { from: 'earliest' }), 2))).toEqual(['a', 'b']);
});

test('what may be stored is not sent again after a sleep of the machine, of which performance.now() knows nothing', async () => {
  const stored: string[] = [];
  const breaks: Answer = (stream, headers) => {
    beginUpload(stream);
    stream.once('data', () => {
      const now = Date.now();
      vi.useFakeTimers({ toFake: ['Date'], now: now + 3_600_000 });
      reset('NGHTTP2_CANCEL')(stream, headers);
    });
  };
  onTestFinished(() => void vi.useRealTimers());
  const server = await ScriptedServer.start(breaks, storeUpload(stored));
  const upload = client(server.address).upload('t', ['a']);
  await expect(upload).rejects.toMatchObject({ reason: 'DEDUP_WINDOW_PASSED', unknown: 1 });
  expect(stored).toEqual([]);
});

test('what may be stored is not sent again once ids of others have pushed its own out', async () => {
  const { address } = await Subject.start({ FEED_DEDUP_IDS: '200' });
  const feed = client(address);
  const since = new Date();
  const events = numbers(0, 10).map((id) => ({ id }));
  const again = () => feed.upload('t', events, { doubtful: { events: 10, since } });
  await feed.upload('t', events);
  expect(await again()).toMatchObject({ stored: 10, duplicates: 10 });
  await feed.upload('other', numbers(0, 300));
  await expect(again()).rejects.toMatchObject({ reason: 'DEDUP_WINDOW_PASSED', unknown: 10 });
  expect(await take(feed.watch('t', { from: 'earliest', until: 'head' }), 10)).toHaveLength(10);
});
