import { readFileSync } from 'node:fs';

// Where things are in an LMDB file of lmdb-js: mdb.c, struct MDB_page, MDB_meta, MDB_node.
const META = { pageBytes: 48, freeRoot: 88, transaction: 152 };
const PAGE = { flags: 18, lower: 20, nodes: 24 };
const BRANCH = 1;
const ON_OTHER_PAGES = 1;

/** The stretches of pages of an LMDB file that hold nothing, as of its last commit: how many pages each. */
export function holesOf(path: string): number[] {
  const file = readFileSync(path);
  const pageBytes = file.readUInt32LE(META.pageBytes);
  const number = (at: number): number => Number(file.readBigInt64LE(at));
  const metas = [0, pageBytes];
  const meta = metas.reduce((a, b) =>
    number(a + META.transaction) > number(b + META.transaction) ? a : b,
  );
  const free = new Set<number>();

  const note = (at: number, length: number): void => {
    for (let i = 0; i < length; i++) {
      let count = 1;
      let first = number(at + 8 * i);
      if (first < 0) {
        count = -first;
        first = number(at + 8 * ++i);
      }
      if (first > 0) for (let page = first; page < first + count; page++) free.add(page);
    }
  };

  const visit = (page: number): void => {
    const at = page * pageBytes;
    const nodes = file.readUInt16LE(at + PAGE.lower) / 2;
    for (let i = 0; i < nodes; i++) {
      const node = at + PAGE.nodes + file.readUInt16LE(at + PAGE.nodes + 2 * i);
      const [low, high, flags, keyBytes] = [0, 2, 4, 6].map((offset) =>
        file.readUInt16LE(node + offset),
      );
      if (file.readUInt16LE(at + PAGE.flags) & BRANCH) {
        visit(low + high * 2 ** 16 + flags * 2 ** 32);
        continue;
      }
      const value = node + 8 + keyBytes;
      const list = flags & ON_OTHER_PAGES ? number(value) * pageBytes + PAGE.nodes : value;
      note(list + 8, number(list));
    }
  };

  visit(number(meta + META.freeRoot));
  const holes: number[] = [];
  let before = -1;
  for (const page of [...free].toSorted((a, b) => a - b)) {
    if (page === before + 1) holes[holes.length - 1]++;
    else holes.push(1);
    before = page;
  }
  return holes;
}
