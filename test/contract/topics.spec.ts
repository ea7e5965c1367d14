import { join } from 'node:path';
import { open as openLmdb } from 'lmdb';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EventLog } from '../../src/repository/event-log.js';
import { AppendError, type EventRepository } from '../../src/repository/event-repository.js';
import { MemoryEngine } from '../../src/repository/memory/memory-engine.js';
import { NATS_SERVER } from '../support/nats.js';
import { temporaryDirectory } from '../support/service.js';
import { checked } from '../wire/events.js';
import { openCheckedLog } from './checked-lmdb.js';
import { ids, readAll } from './reading.js';
import { natsForTests } from './stream.js';

const { openStream } = natsForTests();

type Open = (directory: string, maxTopics: number) => EventRepository | Promise<EventRepository>;
const lmdb: Open = (directory, maxTopics) => openCheckedLog({ directory, fsync: false, maxTopics });
const engines: [string, Open][] = [
  ['lmdb', lmdb],
  ['memory', (_directory, maxTopics) => new EventLog(new MemoryEngine(), { maxTopics })],
];
if (NATS_SERVER)
  engines.push(['jetstream', (directory, maxTopics) => openStream(directory, { maxTopics })]);

async function opened(open: Open, maxTopics: number, directory = temporaryDirectory()) {
  const log = await open(directory, maxTopics);
  onTestFinished(() => log.close());
  const append = (topic: string, id: string, writer = log.openWriter()) =>
    writer.append(checked({ topic, id }));
  return { log, append, directory };
}

const refused = (most: number) => ({ reason: 'refused', most });

describe.each(engines)('a log with as many topics as it may hold (%s)', (_engine, open) => {
  it('refuses a new one, and nothing of those that it holds', async () => {
    const { log, append } = await opened(open, 2);
    await append('a', '1');
    await append('b', '2');
    await expect(append('c', '3')).rejects.toMatchObject(refused(2));
    await append('a', '4');
    expect(ids(await readAll(log, 'a'))).toEqual(['1', '4']);
    expect(ids(await readAll(log, 'c'))).toEqual([]);
  });

  it('refuses it alone of all that is stored at the same time, and what its writer appends after it', async () => {
    const { log, append } = await opened(open, 2);
    const writer = log.openWriter();
    const outcomes = await Promise.allSettled([
      append('a', '1'),
      append('b', '2', writer),
      append('c', '3', writer),
      append('a', '4', writer),
      append('b', '5'),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual([
      'fulfilled',
      'fulfilled',
      'rejected',
      'rejected',
      'fulfilled',
    ]);
    expect(ids(await readAll(log, 'a'))).toEqual(['1']);
    expect(ids(await readAll(log, 'b'))).toEqual(['2', '5']);
  });

  it('refuses it once all is stored that its writer appended before it', async () => {
    const { log, append } = await opened(open, 1);
    await append('a', '1');
    const writer = log.openWriter();
    const settled: string[] = [];
    const note = (topic: string, id: string) => {
      const settle = () => void settled.push(id);
      return append(topic, id, writer).then(settle, settle);
    };
    await Promise.all([note('a', '2'), note('b', '3'), note('a', '4')]);
    expect(settled).toEqual(['2', '3', '4']);
    expect(ids(await readAll(log, 'a'))).toEqual(['1', '2']);
  });

  it('refuses an append with several new topics whole', async () => {
    const { log, append } = await opened(open, 2);
    await append('a', '1');
    const several = checked({ topic: 'b', id: '2' }, { topic: 'c', id: '3' });
    const error: unknown = await log
      .openWriter()
      .append(several)
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(AppendError);
    expect((error as AppendError).message).toMatch(
      /^"b" is a new topic, the first of 2 that came together, and the log holds 1 of the 2 that/,
    );
    expect(ids(await readAll(log, 'b'))).toEqual([]);
    await append('b', '4');
  });
});

describe.each(engines.slice(0, 2))('a topic that was removed (%s)', (_engine, open) => {
  it('leaves its place to another one', async () => {
    const { log, append } = await opened(open, 2);
    await append('a', '0');
    await append('b', '1');
    await append('a', '2');
    await log.removeTopic('a');
    await append('c', '3');
    await expect(append('a', '4')).rejects.toMatchObject(refused(2));
    await append('b', '5');
  });
});

describe('a log on disk', () => {
  it('knows at its next start how many topics it holds', async () => {
    const { log, append, directory } = await opened(lmdb, 3);
    for (const topic of ['a', 'b', 'c']) await append(topic, topic);
    await log.removeTopic('b');
    await log.close();
    const again = await opened(lmdb, 3, directory);
    await again.append('d', '1');
    await expect(again.append('e', '2')).rejects.toMatchObject(refused(3));
  });

  it('counts its topics where an earlier version has left no number', async () => {
    const { log, append, directory } = await opened(lmdb, 2);
    for (const topic of ['a', 'b']) await append(topic, topic);
    await log.close();
    const root = openLmdb({ path: join(directory, 'log'), maxDbs: 8 });
    const meta = root.openDB<{ topics?: number }, string>({ name: 'meta', encoding: 'json' });
    const { topics, ...head } = meta.get('head')!;
    expect(topics).toBe(2);
    await meta.put('head', head);
    await root.close();
    const again = await opened(lmdb, 2, directory);
    await expect(again.append('c', '1')).rejects.toMatchObject(refused(2));
    await again.append('b', '2');
  });
});

describe.skipIf(!NATS_SERVER)('several replicas', () => {
  it('count the topics of all', async () => {
    const stream: Open = (directory, maxTopics) => openStream(directory, { maxTopics });
    const one = await opened(stream, 2);
    const other = await opened(stream, 2, one.directory);
    await one.append('a', '1');
    await other.append('b', '2');
    await one.log.catchUp();
    await expect(one.append('c', '3')).rejects.toMatchObject(refused(2));
    await other.append('a', '4');
    const third = await opened(stream, 2, one.directory);
    await expect(third.append('c', '5')).rejects.toMatchObject(refused(2));
    await third.append('b', '6');
  });
});
