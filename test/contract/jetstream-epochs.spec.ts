import { describe, expect, it } from 'vitest';
import { ANYONE } from '../../src/feed/caller.js';
import { FeedError } from '../../src/feed/errors.js';
import { watchStart } from '../../src/feed/watch-start.js';
import type { JetStreamLog } from '../../src/repository/jetstream/jetstream-log.js';
import { epochsSubjectOf } from '../../src/repository/jetstream/stream-config.js';
import { KEEP_ALL } from '../../src/repository/retention.js';
import { type Cursor, formatCursor } from '../../src/wire/cursor.js';
import { StreamApi } from '../../src/nats/stream-api.js';
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

  /** Asks JetStream for something while no replica runs. */
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
    const early = await append(before, { topic: 't' });
    const last = await append(before, { topic: 't' });
    await before.close();
    await age(stream, 't');
    const log = await open(stream);
    for (const cursor of [early, last]) {
      const refused = await watchAfter(log, cursor);
      expect(refused).toMatchObject({ reason: 'CURSOR_EXPIRED' });
      const { earliest } = (refused as FeedError).metadata;
      expect(await watchAfter(log, cursor, true)).toMatchObject({ earliest });
    }
  });

  it('whose record was removed, and not what came after a cursor, may be those of another stream', async () => {
    const stream = newStream();
    const before = await open(stream);
    await append(before, { topic: 'u' });
    const cursor = await append(before, { topic: 't' });
    await append(before, { topic: 't' });
    await before.close();
    await age(stream);
    const log = await open(stream);
    expect(await watchAfter(log, cursor)).toMatchObject({ reason: 'EPOCH_CHANGED' });
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

  it('outlast a start with a lower limit, which removes their record', async () => {
    const stream = newStream();
    const before = await open(stream);
    const body = 'x'.repeat(1_000);
    const events = Array.from({ length: 30 }, () => ({ topic: 't', body }));
    const cursor = await append(before, ...events);
    await before.close();
    const log = await open(stream, { retention: { ...KEEP_ALL, maxBytes: 8_000 } });
    expect(await log.floor('t')).toBeGreaterThan(0);
    expect(log.locate(cursor)).toBe('in-log');
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
