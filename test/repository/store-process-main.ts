import { Store } from '../../src/repository/lmdb/store.js';
import { answer } from '../support/child-main.js';
import { randomFrom } from '../support/random.js';

export type Methods = typeof methods;

interface Table {
  put(key: Buffer, value: Buffer): unknown;
  remove(key: Buffer): unknown;
  doesExist(key: Buffer): boolean;
  getStats(): { readonly entryCount: number };
}

/** The most pieces of a record, and the size of one, which takes a page. */
const PIECES = 12;
const PIECE = Buffer.alloc(4072, 'x');
const TOPICS = 8;

function keyOf(first: number, record: number): Buffer {
  const key = Buffer.alloc(8, first);
  key.writeUIntBE(record, 2, 6);
  return key;
}

const methods = {
  /**
   * Makes random commits that hold about so many pages: the store's free pages are few, and then many again. Returns the errors
   * of those that failed, how often lmdb has given one up, and whether the store has exactly what was put.
   */
  async commit(
    directory: string,
    { seed, pages, commits }: { seed: number; pages: number; commits: number },
  ): Promise<{ errors: string[]; givenUp: number; isWhole: boolean }> {
    const random = randomFrom(seed);
    const store = new Store(directory, false);
    const { db: runs, pieces } = store.runs as unknown as { db: Table; pieces: Table };
    const errors: string[] = [];
    let givenUp = 0;
    console.error = (error: unknown) => void (givenUp += /MDB_BAD_TXN/.test(String(error)) ? 1 : 0);
    const held = Array.from({ length: TOPICS }, () => [] as [record: number, pieces: number][]);
    let heldPages = 0;
    let next = 0;
    for (let n = 0; n < commits; n++) {
      const changes: (() => void)[] = [];
      for (let left = random(4); left >= 0; left--) {
        const [topic, count, record] = [random(TOPICS), random(PIECES), next++];
        const [size, lastSize] = [50 + random(4_000), 1 + random(4_000)];
        changes.push(() => {
          runs.put(keyOf(topic, record), PIECE.subarray(0, size));
          for (let i = 0; i < count; i++)
            pieces.put(keyOf(i, record), i === count - 1 ? PIECE.subarray(0, lastSize) : PIECE);
        });
        held[topic].push([record, count]);
        heldPages += 1 + count;
      }
      const most = heldPages > 1.02 * pages ? pages : Infinity;
      while (heldPages > most) {
        const topic = random(TOPICS);
        for (const [record, count] of held[topic].splice(0, 1 + random(100))) {
          changes.push(() => {
            runs.remove(keyOf(topic, record));
            for (let i = 0; i < count; i++) pieces.remove(keyOf(i, record));
          });
          heldPages -= 1 + count;
        }
      }
      const commit = store.write(() => changes.forEach((change) => change()));
      await commit.catch((error: Error) => errors.push(error.message));
    }
    const records = held.flatMap((all, topic) =>
      all.flatMap(([record, count]) => [
        runs.doesExist(keyOf(topic, record)),
        ...Array.from({ length: count }, (_, i) => pieces.doesExist(keyOf(i, record))),
      ]),
    );
    const entries = runs.getStats().entryCount + pieces.getStats().entryCount;
    await store.close();
    return { errors, givenUp, isWhole: records.every(Boolean) && records.length === entries };
  },
};

answer(methods);
