import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { ANYONE } from '../../src/feed/caller.js';
import { FeedError } from '../../src/feed/errors.js';
import { watchStart } from '../../src/feed/watch-start.js';
import type { JetStreamLog } from '../../src/repository/jetstream/jetstream-log.js';
import { epochsSubjectOf } from '../../src/repository/jetstream/stream-config.js';
import { KEEP_ALL } from '../../src/repository/retention.js';
import { type Cursor, formatCursor } from '../../src/wire/cursor.js';
import { CODE, RefusedError, StreamApi } from '../../src/nats/stream-api.js';
import { NATS_SERVER } from '../support/nats.js';
import { checked } from '../wire/events.js';
import { natsForTests, reconnecting } from './stream.js';

describe.skipIf(!NATS_SERVER)('the epochs of a stream', () => {
  const { server, newStream, open } = natsForTests();

  /** Appends one event after another. Returns the cursor of the last one. */
  async function append(log: JetStreamLog, ...events: { topic: string; body?: string }[]) {
    const writer = log.openWriter();
    for (const event of events) await writer.append(checked({ id: '', ...event }));
    return log.cursorAt(log.head);
  }

  /** Asks JetStream for something, as somebody else. */
  async function meanwhile(stream: string, act: (api: StreamApi) => Promise<unknown>) {
    const connection = await reconnecting(server());
    await act(new StreamApi(connection, stream, { onConnection() {}, onRefusal() {} }));
    await connection.close();
  }

  /** Removes the record of the epochs and the messages of some topics, as retention by age does while no replica runs. */
  const age = (stream: string, ...topics: string[]): Promise<void> =>
    meanwhile(stream, async (api) => {
      const { config, state } = await api.info();
      const record = epochsSubjectOf(config);
      await api.purge(record, state.last_seq + 1);
      const prefix = config.subjects.find((subject) => subject !== record)!.slice(0, -1);
      for (const topic of topics) await api.purge(prefix + topic, state.last_seq + 1);
    });

  /** Begins a watch after a cursor. Returns its start, or its error. */
  const watchAfter = (log: JetStreamLog, cursor: Cursor, skipRemoved = false) =>
    watchStart(
      log,
      { topics: ['t'], afterCursor: formatCursor(cursor), skipRemoved },
      ANYONE,
    ).catch((error: FeedError) => error);

  it('whose record and events were removed while no replica ran are not taken for those of another stream', async () => {
    const stream = newStream();
    const before = await open(stream);
    // That of a watch which begins before there is any event.
    const first = before.cursorAt(0);
    const early = await append(before, { topic: 't' });
    const last = await append(before, { topic: 't' });
    await before.close();
    await age(stream, 't');
    const log = await open(stream);
    for (const cursor of [first, early, last]) {
      const refused = await watchAfter(log, cursor);
      expect(refused).toMatchObject({ reason: 'CURSOR_EXPIRED' });
      const { earliest } = (refused as FeedError).metadata;
      expect(await watchAfter(log, cursor, true)).toMatchObject({ earliest });
    }
  });

  it('whose record was removed, and not what came after a cursor, may be those of another stream', async () => {
    const stream = newStream();
    const before = await open(stream);
    const first = before.cursorAt(0);
    await append(before, { topic: 'u' });
    const cursor = await append(before, { topic: 't' });
    await append(before, { topic: 't' });
    await before.close();
    await age(stream);
    const log = await open(stream);
    for (const one of [first, cursor])
      expect(await watchAfter(log, one)).toMatchObject({ reason: 'EPOCH_CHANGED' });
  });

  it('whose record an operator purges are stored once more with the next event', async () => {
    const stream = newStream();
    const before = await open(stream);
    await append(before, { topic: 't' });
    await meanwhile(stream, async ({ connection }) => {
      await connection.request(`$JS.API.STREAM.PURGE.${stream}`, '', { timeout: 30_000 });
    });
    const cursor = await append(before, { topic: 't' });
    await append(before, { topic: 't' });
    await before.close();
    const log = await open(stream);
    expect(await watchAfter(log, cursor)).toMatchObject({ after: cursor.position });
  });

  it('of a stream that was made anew are other ones', async () => {
    const stream = newStream();
    const before = await open(stream);
    const cursor = await append(before, { topic: 't' });
    await before.close();
    await meanwhile(stream, async (api) =>
      api.connection.request(`$JS.API.STREAM.DELETE.${stream}`, ''),
    );
    const log = await open(stream);
    expect(await watchAfter(log, cursor)).toMatchObject({ reason: 'EPOCH_CHANGED' });
  });

  describe('outlast a start with a lower limit', () => {
    const lower = { retention: { ...KEEP_ALL, maxBytes: 8_000 } };

    /** Makes a stream with more events than the lower limit allows. Returns it, and the cursor of its last event. */
    async function makeLarge() {
      const stream = newStream();
      const before = await open(stream);
      const body = 'x'.repeat(1_000);
      const cursor = await append(
        before,
        ...Array.from({ length: 30 }, () => ({ topic: 't', body })),
      );
      await before.close();
      return { stream, cursor };
    }

    /** Calls `then` when the next start has lowered the limit. */
    function onceLowered(then: () => Promise<unknown>): void {
      const update = vi.spyOn(StreamApi.prototype, 'update');
      onTestFinished(() => update.mockRestore());
      update.mockImplementationOnce(async function (this: StreamApi, config) {
        const info = await this.update(config);
        await then();
        return info;
      });
    }

    it('though older events are removed', async () => {
      const { stream, cursor } = await makeLarge();
      const log = await open(stream, lower);
      expect(await log.floor('t')).toBeGreaterThan(0);
      expect(log.locate(cursor)).toBe('in-log');
    });

    /** Makes JetStream refuse what the next start stores, so many times. */
    function refuse(code: number, times: number): void {
      const publish = vi.spyOn(StreamApi.prototype, 'publish');
      onTestFinished(() => publish.mockRestore());
      for (let i = 0; i < times; i++)
        publish.mockRejectedValueOnce(new RefusedError(code, 'by the test'));
    }

    it.each(['', ', and another one stores something'])(
      'also where another replica starts%s',
      async (more) => {
        const { stream, cursor } = await makeLarge();
        if (more) refuse(CODE.wrongLastSequence, 1);
        let other: JetStreamLog | undefined;
        onceLowered(async () => (other = await open(stream, lower)));
        const log = await open(stream, lower);
        for (const one of [other!, log]) expect(one.locate(cursor)).toBe('in-log');
      },
    );

    it('also where that start is killed', async () => {
      const { stream, cursor } = await makeLarge();
      onceLowered(() => Promise.reject(new Error('killed by the test')));
      await expect(open(stream, lower)).rejects.toThrow('killed');
      expect((await open(stream, lower)).locate(cursor)).toBe('in-log');
    });

    it('also where their record has no room to be stored once more', async () => {
      const { stream, cursor } = await makeLarge();
      refuse(CODE.maxBytes, 20);
      expect((await open(stream, lower)).locate(cursor)).toBe('in-log');
    });
  });

  it('without a record, and without room for one, are not known: the start says so', async () => {
    const stream = newStream();
    const before = await open(stream);
    await append(
      before,
      ...Array.from({ length: 30 }, () => ({ topic: 't', body: 'x'.repeat(1_000) })),
    );
    await before.close();
    await age(stream);
    const full = open(stream, { retention: { ...KEEP_ALL, quotaBytes: 20_000 } });
    await expect(full).rejects.toMatchObject({ reason: 'storage-full' });
  });
});
