import { readFileSync } from 'node:fs';

// Offsets in an LMDB file, from lmdb-js's mdb.c: struct MDB_meta and MDB_page. An MDB_node starts with four 16-bit numbers.
const META = { pageBytes: 48, freeRoot: 88, transaction: 152 };
const PAGE = { flags: 18, lower: 20, nodes: 24 };
/** P_BRANCH: the page's nodes are page numbers, not values. */
const BRANCH = 1;
/** F_BIGDATA: the node's value is the number of the page where the value begins. */
const ON_OTHER_PAGES = 1;

/** Returns the length, in pages, of each run of consecutive free pages in an LMDB file, as of its last commit. */
export function holesOf(path: string): number[] {
  const file = readFileSync(path);
  const pageBytes = file.readUInt32LE(META.pageBytes);
  const number = (at: number): number => Number(file.readBigInt64LE(at));
  const metas = [0, pageBytes];
  const meta = metas.reduce((a, b) =>
    number(a + META.transaction) > number(b + META.transaction) ? a : b,
  );
  const free = new Set<number>();

  /** An entry of the list is a page number, or -n and then the first of n pages. */
  const addPagesOfList = (at: number, length: number): void => {
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

  const addPagesOfTree = (page: number): void => {
    const at = page * pageBytes;
    const nodes = file.readUInt16LE(at + PAGE.lower) / 2;
    for (let i = 0; i < nodes; i++) {
      const node = at + PAGE.nodes + file.readUInt16LE(at + PAGE.nodes + 2 * i);
      const [low, high, flags, keyBytes] = [0, 2, 4, 6].map((offset) =>
        file.readUInt16LE(node + offset),
      );
      if (file.readUInt16LE(at + PAGE.flags) & BRANCH) {
        addPagesOfTree(low + high * 2 ** 16 + flags * 2 ** 32);
        continue;
      }
      const value = node + 8 + keyBytes;
      const list = flags & ON_OTHER_PAGES ? number(value) * pageBytes + PAGE.nodes : value;
      addPagesOfList(list + 8, number(list));
    }
  };

  addPagesOfTree(number(meta + META.freeRoot));
  const holes: number[] = [];
  let before = -1;
  for (const page of [...free].toSorted((a, b) => a - b)) {
    if (page === before + 1) holes[holes.length - 1]++;
    else holes.push(1);
    before = page;
  }
  return holes;
}
