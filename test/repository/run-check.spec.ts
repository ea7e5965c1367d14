import { join } from 'node:path';
import { type Database, open as openLmdb } from 'lmdb';
import { afterEach, describe, expect, it } from 'vitest';
import type { EventLog } from '../../src/repository/event-log.js';
import { openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import { pieceKey, positionKey, readRunKey, readTopic } from '../../src/repository/lmdb/run-key.js';
import { forgetLog } from '../contract/checked-lmdb.js';
import { ids, readAll } from '../contract/reading.js';
import { temporaryDirectory } from '../contract/temporary.js';
import { checked } from '../wire/events.js';

const endings: (() => void)[] = [];
afterEach(() => endings.splice(0).forEach((end) => end()));

interface Tables {
  readonly runs: Database<Buffer, Buffer>;
  readonly pieces: Database<Buffer, Buffer>;
  readonly meta: Database<object, string>;
  readonly floors: Database<number, string>;
  readonly ids: Database<Buffer, Buffer>;
  readonly order: Database<object, Buffer>;
  readonly removedIds: Database<Buffer, Buffer>;
}

/**
 * A log of three commits in one topic and one in another, whose tables were changed by another hand. A third topic was emptied, and its
 * ids are remembered.
 */
async function changedLog(change: (tables: Tables) => unknown): Promise<string> {
  const { path: directory, remove } = temporaryDirectory();
  endings.push(remove);
  const dedup = { ids: 1_000, milliseconds: 3_600_000 };
  const log = await openLmdbLog({ directory, fsync: false, dedup });
  const writer = log.openWriter();
  for (const [topic, id, size] of [
    ['v', 'z', 9_000],
    ['t', 'a', 10],
    ['u', 'b', 10],
    ['t', 'c', 9_000],
    ['t', 'd', 10],
  ] as const)
    await writer.append(checked({ topic, id, body: 'x'.repeat(size) }, { topic, id: `${id}2` }));
  await log.removeTopic('v');
  await log.close();

  const path = join(directory, 'log');
  const root = openLmdb({ path, maxDbs: 8 });
  const bytes = { encoding: 'binary', keyEncoding: 'binary' } as const;
  await change({
    runs: root.openDB({ name: 'runs', ...bytes }),
    pieces: root.openDB({ name: 'pieces', ...bytes }),
    meta: root.openDB({ name: 'meta', encoding: 'json' }),
    floors: root.openDB({ name: 'floors', encoding: 'json' }),
    ids: root.openDB({ name: 'ids', ...bytes }),
    order: root.openDB({ name: 'order', encoding: 'json', keyEncoding: 'binary' }),
    removedIds: root.openDB({ name: 'removed-ids', ...bytes }),
  });
  await root.close();
  forgetLog(directory);
  return directory;
}

const SEVERAL_MOMENTS = 'its tables are of several moments';

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

  const others: { what: string; change: (tables: Tables) => unknown }[] = [
    {
      what: 'knows no sum',
      change: ({ meta }) => meta.put('head', { ...meta.get('head'), sum: undefined }),
    },
    {
      what: 'leaves the sum as it was, and begins an epoch',
      change: ({ meta }) =>
        meta.put('epochs', [...(meta.get('epochs') as object[]), { epoch: 'another', after: 10 }]),
    },
  ];
  it.each(others)('nor is one whose last writer $what', async ({ change }) => {
    const directory = await changedLog(async (tables) => {
      await change(tables);
      await tables.floors.put('w', 2);
    });
    for (const id of ['e', 'f']) {
      const log = await open(directory);
      await log.openWriter().append(checked({ topic: 't', id }));
      await log.close();
      forgetLog(directory);
    }
  });

  const changes: { what: string; says: string; change: (tables: Tables) => unknown }[] = [
    {
      what: 'the newest run of a topic is missing',
      says: 'bytes of events, and holds',
      change: (tables) => tables.runs.remove(runOf(tables, 't', 2)),
    },
    {
      what: 'a run is missing between others',
      says: 'events are missing before position 9',
      change: async (tables) => {
        const key = runOf(tables, 't', 1);
        const { first, size } = readRunKey(key);
        for (let i = 0; i * 4_072 < size; i++) await tables.pieces.remove(pieceKey(first, i));
        await tables.runs.remove(key);
      },
    },
    {
      what: 'a piece of a run is missing',
      says: 'a piece of the events at position 7 is missing',
      change: ({ pieces }) => pieces.remove(pieceKey(7, 1)),
    },
    {
      what: 'a piece belongs to no run',
      says: 'pieces of events that belong to none',
      change: ({ pieces }) => pieces.put(pieceKey(8, 0), Buffer.from('x')),
    },
    {
      what: 'the head is of an earlier moment',
      says: 'it ends at position 8, and has 10',
      change: ({ meta }) => meta.put('head', { ...meta.get('head'), position: 8 }),
    },
    {
      what: 'a floor is of a later moment',
      says: 'events at position 3 were removed',
      change: ({ floors }) => floors.put('t', 6),
    },
    {
      what: 'a frame has another length',
      says: 'the events at position 3 are not whole',
      change: (tables) => changeByte(tables, 4),
    },
    {
      what: 'an event has another cursor',
      says: 'the events at position 3 are not whole',
      change: (tables) => changeByte(tables, -1),
    },
    {
      what: 'the head is missing',
      says: 'it ends at position 0, and has',
      change: ({ meta }) => meta.remove('head'),
    },
    {
      what: 'the epochs are missing',
      says: 'it has events, and no epochs',
      change: ({ meta }) => meta.remove('epochs'),
    },
    {
      what: 'a floor is of an earlier moment',
      says: SEVERAL_MOMENTS,
      change: ({ floors }) => floors.put('v', 1),
    },
    {
      what: 'a floor is missing',
      says: SEVERAL_MOMENTS,
      change: ({ floors }) => floors.remove('v'),
    },
    {
      what: 'a record of ids is missing',
      says: SEVERAL_MOMENTS,
      change: ({ ids: table }) => table.remove(positionKey(3)),
    },
    {
      what: 'a record of a commit is missing',
      says: SEVERAL_MOMENTS,
      change: ({ order }) => order.remove(positionKey(3)),
    },
    {
      what: 'a floor is as much later as the missing record of ids began',
      says: SEVERAL_MOMENTS,
      change: async ({ ids: table, floors }) => {
        await table.remove(positionKey(1));
        await floors.put('v', floors.get('v')! + 1);
      },
    },
    {
      what: 'a record is shorter than its table has them',
      says: "a record can't be read",
      change: ({ removedIds }) => removedIds.put(Buffer.from('x'), Buffer.from('x')),
    },
    {
      what: 'the ids of removed events are missing',
      says: SEVERAL_MOMENTS,
      change: ({ removedIds }) => removedIds.remove([...removedIds.getKeys()][0]),
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
