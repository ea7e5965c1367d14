import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Database, open as openLmdb } from 'lmdb';
import { afterEach, describe, expect, it } from 'vitest';
import type { EventLog } from '../../src/repository/event-log.js';
import { openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import { pieceKey, readRunKey, readTopic } from '../../src/repository/lmdb/run-key.js';
import { ids, readAll } from '../contract/reading.js';
import { temporaryDirectory } from '../contract/temporary.js';
import { checked } from '../wire/events.js';

const endings: (() => void)[] = [];
afterEach(() => endings.splice(0).forEach((end) => end()));

interface Tables {
  readonly runs: Database<Buffer, Buffer>;
  readonly pieces: Database<Buffer, Buffer>;
  readonly meta: Database<{ position: number; bytes: number }, string>;
  readonly floors: Database<number, string>;
}

/** A log of three commits in one topic and one in another, whose tables were changed by another hand. */
async function changedLog(change: (tables: Tables) => unknown): Promise<string> {
  const { path: directory, remove } = temporaryDirectory();
  endings.push(remove);
  const log = await openLmdbLog({ directory, fsync: false });
  const writer = log.openWriter();
  for (const [topic, id, size] of [
    ['t', 'a', 10],
    ['u', 'b', 10],
    ['t', 'c', 9_000],
    ['t', 'd', 10],
  ] as const)
    await writer.append(checked({ topic, id, body: 'x'.repeat(size) }, { topic, id: `${id}2` }));
  await log.close();

  const path = join(directory, 'log');
  const root = openLmdb({ path, maxDbs: 8 });
  const bytes = { encoding: 'binary', keyEncoding: 'binary' } as const;
  await change({
    runs: root.openDB({ name: 'runs', ...bytes }),
    pieces: root.openDB({ name: 'pieces', ...bytes }),
    meta: root.openDB({ name: 'meta', encoding: 'json' }),
    floors: root.openDB({ name: 'floors', encoding: 'json' }),
  });
  await root.close();
  // As a copy has none that is right.
  rmSync(join(path, 'opened'));
  return directory;
}

const open = (directory: string): Promise<EventLog> => openLmdbLog({ directory, fsync: false });

/** The key of a topic's i-th run. */
function runOf({ runs }: Tables, topic: string, i: number): Buffer {
  return [...runs.getKeys()].filter((key) => readTopic(key) === topic)[i];
}

describe('a copy whose pages are whole and whose events are not is refused', () => {
  it('but one of which all is right is not', async () => {
    const log = await open(await changedLog(() => {}));
    expect(ids(await readAll(log, 't'))).toEqual(['a', 'a2', 'c', 'c2', 'd', 'd2']);
    await log.close();
  });

  const changes: { what: string; says: string; change: (tables: Tables) => unknown }[] = [
    {
      what: 'the newest run of a topic is missing',
      says: 'bytes of events, and holds',
      change: (tables) => tables.runs.remove(runOf(tables, 't', 2)),
    },
    {
      what: 'a run is missing between others',
      says: 'events are missing before position 7',
      change: async (tables) => {
        const key = runOf(tables, 't', 1);
        const { first, size } = readRunKey(key);
        for (let i = 0; i * 4_072 < size; i++) await tables.pieces.remove(pieceKey(first, i));
        await tables.runs.remove(key);
      },
    },
    {
      what: 'a piece of a run is missing',
      says: 'a piece of the events at position 5 is missing',
      change: ({ pieces }) => pieces.remove(pieceKey(5, 1)),
    },
    {
      what: 'a piece belongs to no run',
      says: 'pieces of events that belong to none',
      change: ({ pieces }) => pieces.put(pieceKey(6, 0), Buffer.from('x')),
    },
    {
      what: 'the head is of an earlier moment',
      says: 'it ends at position 6, and has 8',
      change: ({ meta }) => meta.put('head', { ...meta.get('head')!, position: 6 }),
    },
    {
      what: 'a floor is of a later moment',
      says: 'events at position 1 were removed',
      change: ({ floors }) => floors.put('t', 4),
    },
    {
      what: 'a frame has another length',
      says: 'the events at position 1 are not whole',
      change: (tables) => changeByte(tables, 4),
    },
    {
      what: 'an event has another cursor',
      says: 'the events at position 1 are not whole',
      change: (tables) => changeByte(tables, -1),
    },
  ];

  function changeByte(tables: Tables, at: number): Promise<boolean> {
    const key = runOf(tables, 't', 0);
    const bytes = Buffer.from(tables.runs.get(key)!);
    bytes[at < 0 ? bytes.length + at : at] ^= 1;
    return tables.runs.put(key, bytes);
  }

  it.each(changes)('$what', async ({ says, change }) => {
    const directory = await changedLog(change);
    const refused = await open(directory).then(
      (log) => log.close(),
      (error: Error) => error.message,
    );
    expect(refused).toContain('data.mdb is damaged (');
    expect(refused).toContain(says);
  });
});
