import { DamageError } from './damage.js';
import {
  childPage,
  keyBytes,
  lowerBound,
  type Meta,
  NO_PAGE,
  NODE_HEADER_BYTES,
  nodeAt,
  NodeFlag,
  nodeFlags,
  OVERFLOW_REFERENCE_BYTES,
  overflowPageCount,
  PAGE_HEADER_BYTES,
  PageFlag,
  pageFlags,
  pageNumber,
  pageTransaction,
  readNumber,
  readTree,
  type Tree,
  TREE_BYTES,
  upperBound,
  valueBytes,
} from './lmdb-file.js';
import { PageReader } from './page-reader.js';

/** Bounds that a child page must keep, taken from its parent. */
interface Above {
  readonly transaction: number;
  /** The lowest key allowed in the page, and the first key above it that is not; undefined: no bound. */
  readonly from: Buffer | undefined;
  readonly to: Buffer | undefined;
}

interface Counts {
  branchPages: number;
  leafPages: number;
  overflowPages: number;
  entries: number;
}

/** How LMDB sorts the keys of a tree. */
type Compare = (a: Buffer, b: Buffer) => number;

/** LMDB's own stack has room for so many pages from a root to a leaf. */
const MAX_DEPTH = 32;

/**
 * Goes through all pages that a meta page leads to, and throws where one is not what the page above says: LMDB
 * follows whatever is there, and would end the process by a signal, or hand out bytes of another moment.
 *
 * What proves a page: its number is its place; no page is reached twice, or reached and free; its transaction is not
 * newer than that of the page above, because LMDB copies the way from the root to all that it changes; an overflow
 * page's transaction is the one that its reference names; nodes fill their page without gap, keys are in order and
 * within the bounds above; and each tree has as many pages and entries as its record says.
 *
 * It yields which share of the file's pages it has seen.
 */
export class TreeCheck {
  private readonly reader: PageReader;
  private readonly pageBytes: number;
  private readonly reached: Uint8Array;
  private pages = 0;

  /** @param size of the file in bytes */
  constructor(
    file: number,
    private readonly size: number,
    private readonly meta: Meta,
  ) {
    this.pageBytes = meta.pageBytes;
    this.reader = new PageReader(file, this.pageBytes);
    this.reached = new Uint8Array(Math.floor(meta.lastPage / 8) + 1);
  }

  *run(): Generator<number> {
    const { main, free, transaction } = this.meta;
    yield* this.tree(main, transaction, compareBytes, (page, node, value) =>
      this.namedTree(page, node, value),
    );
    // The free tree's flags are those of the environment.
    yield* this.tree({ ...free, flags: 0 }, transaction, compareNumbers, (page, node, value) =>
      this.freePages(page, node, value),
    );
  }

  /** @param onValue looks at each value of the tree */
  private *tree(
    tree: Tree,
    transaction: number,
    compare: Compare,
    onValue: (page: Buffer, node: number, value: number) => Iterable<number>,
  ): Generator<number> {
    // Flags would say that LMDB sorts the keys otherwise, or that values are trees of duplicates.
    if (tree.flags !== 0) throw new DamageError(`one of its trees has the flags ${tree.flags}`);
    const counts: Counts = { branchPages: 0, leafPages: 0, overflowPages: 0, entries: 0 };
    if (tree.root !== NO_PAGE) {
      if (tree.depth === 0 || tree.depth > MAX_DEPTH)
        throw new DamageError(`one of its trees has a depth of ${tree.depth}`);
      const above = { transaction, from: undefined, to: undefined };
      yield* this.treePage(tree.root, tree.depth, above, compare, counts, onValue);
    }
    for (const count of ['branchPages', 'leafPages', 'overflowPages', 'entries'] as const) {
      if (counts[count] !== tree[count])
        throw new DamageError(`${counts[count]} ${count} are there of ${tree[count]}`);
    }
  }

  private *treePage(
    number: number,
    height: number,
    above: Above,
    compare: Compare,
    counts: Counts,
    onValue: (page: Buffer, node: number, value: number) => Iterable<number>,
  ): Generator<number> {
    this.reach(number, 1);
    // A copy: it is still needed when many others have been read.
    const page = Buffer.from(this.reader.page(number));
    this.checkHeader(page, number, height === 1 ? PageFlag.leaf : PageFlag.branch, above);
    const nodes = this.checkNodes(page, number, height === 1, above, compare);
    const transaction = pageTransaction(page);
    if (height > 1) {
      counts.branchPages++;
      for (let i = 0; i < nodes; i++) {
        const from = i === 0 ? above.from : keyAt(page, i);
        const to = i === nodes - 1 ? above.to : keyAt(page, i + 1);
        const child = childPage(page, nodeAt(page, i));
        yield* this.treePage(
          child,
          height - 1,
          { transaction, from, to },
          compare,
          counts,
          onValue,
        );
      }
      return;
    }
    counts.leafPages++;
    counts.entries += nodes;
    for (let i = 0; i < nodes; i++) {
      const node = nodeAt(page, i);
      let value = node + NODE_HEADER_BYTES + keyBytes(page, node);
      if (nodeFlags(page, node) & NodeFlag.overflow)
        counts.overflowPages += this.overflow(page, node, value, transaction);
      yield* onValue(page, node, value);
    }
    yield this.pages / this.meta.lastPage;
  }

  /** Marks pages as reached, which must be in the file, and not reached or free already. */
  private reach(first: number, count: number): void {
    const end = first + count;
    if (first < 2 || count < 1 || end - 1 > this.meta.lastPage)
      throw new DamageError(`it refers to page ${first} of ${this.meta.lastPage + 1}`);
    if (end * this.pageBytes > this.size)
      throw new DamageError(`it has ${this.size} bytes, and page ${end - 1} is beyond them`);
    for (let page = first; page < end; page++) this.mark(page);
    this.pages += count;
  }

  private mark(page: number): void {
    const bit = 1 << (page & 7);
    if (this.reached[page >>> 3] & bit) throw new DamageError(`page ${page} is used twice`);
    this.reached[page >>> 3] |= bit;
  }

  private checkHeader(page: Buffer, number: number, flag: number, above: Above): void {
    if (pageNumber(page) !== number || pageFlags(page) !== flag)
      throw new DamageError(`page ${number} is not what its tree says`);
    if (pageTransaction(page) > above.transaction)
      throw new DamageError(`page ${number} is of a later moment than what leads to it`);
  }

  /** @returns how many nodes there are */
  private checkNodes(
    page: Buffer,
    number: number,
    isLeaf: boolean,
    { from, to }: Above,
    compare: Compare,
  ): number {
    const lower = lowerBound(page);
    const upper = upperBound(page);
    const room = this.pageBytes - PAGE_HEADER_BYTES;
    const nodes = lower / 2;
    const damaged = (what: string): DamageError =>
      new DamageError(`page ${number} is damaged: ${what}`);
    if (lower % 2 !== 0 || lower > upper || upper > room) throw damaged('its bounds');
    // LMDB never leaves fewer, and ends the process where it finds so.
    if (nodes < (isLeaf ? 1 : 2)) throw damaged('it has too few nodes');
    let used = 0;
    let before = from;
    for (let i = 0; i < nodes; i++) {
      const node = nodeAt(page, i);
      if (node < PAGE_HEADER_BYTES + upper || node + NODE_HEADER_BYTES > this.pageBytes)
        throw damaged('the place of a node');
      let bytes = NODE_HEADER_BYTES + keyBytes(page, node);
      if (isLeaf) bytes += storedValueBytes(page, node);
      if (node + bytes > this.pageBytes) throw damaged('the length of a node');
      used += bytes + (bytes & 1);
      // The first of a branch page stands for all keys below the second.
      if (!isLeaf && i === 0) continue;
      const key = keyAt(page, i);
      if (key.length === 0) throw damaged('an empty key');
      if (compare === compareNumbers && key.length !== 8) throw damaged('the length of a key');
      if (before) {
        const order = compare(before, key);
        if (order > 0 || (order === 0 && i > (isLeaf ? 0 : 1)))
          throw damaged('the order of its keys');
      }
      if (to && compare(key, to) >= 0) throw damaged('a key that belongs elsewhere');
      before = key;
    }
    if (used !== room - upper) throw damaged('its nodes');
    return nodes;
  }

  /** @returns how many pages the value takes */
  private overflow(page: Buffer, node: number, value: number, transaction: number): number {
    const first = readNumber(page, value);
    const written = readNumber(page, value + 8);
    const count = readNumber(page, value + 16);
    this.reach(first, count);
    const header = this.reader.page(first);
    if (pageNumber(header) !== first || pageFlags(header) !== PageFlag.overflow)
      throw new DamageError(`page ${first} is not what its tree says`);
    if (pageTransaction(header) !== written || written > transaction)
      throw new DamageError(`page ${first} is of another moment than what leads to it`);
    const needed = Math.ceil((PAGE_HEADER_BYTES + valueBytes(page, node)) / this.pageBytes);
    if (overflowPageCount(header) !== count || needed !== count)
      throw new DamageError(`page ${first} has another length than what leads to it says`);
    return count;
  }

  private *namedTree(page: Buffer, node: number, value: number): Generator<number> {
    if (nodeFlags(page, node) !== NodeFlag.tree) return;
    if (valueBytes(page, node) !== TREE_BYTES)
      throw new DamageError('the record of a tree is none');
    yield* this.tree(readTree(page, value), pageTransaction(page), compareBytes, (leaf, inner) => {
      if (nodeFlags(leaf, inner) & ~NodeFlag.overflow)
        throw new DamageError('a value is a tree of its own');
      return [];
    });
  }

  /**
   * A list of free pages, as lmdb-js writes it: how many numbers follow; each of them a page, or 0, or, negative, how
   * many pages there are from the one on that comes next.
   */
  private freePages(page: Buffer, node: number, value: number): Iterable<number> {
    const length = valueBytes(page, node);
    const list =
      nodeFlags(page, node) & NodeFlag.overflow
        ? this.reader.bytes(readNumber(page, value) * this.pageBytes + PAGE_HEADER_BYTES, length)
        : page.subarray(value, value + length);
    const count = length < 8 ? 0 : readNumber(list, 0);
    if (length < 8 || length < 8 * (count + 1))
      throw new DamageError('a list of free pages is cut');
    for (let i = 1; i <= count; i++) {
      let pages = 1;
      let first = Number(list.readBigInt64LE(8 * i));
      if (first < 0 && i < count) {
        pages = -first;
        first = Number(list.readBigInt64LE(8 * ++i));
      }
      if (first === 0) continue;
      if (first < 2 || pages > this.meta.lastPage || first + pages - 1 > this.meta.lastPage)
        throw new DamageError(`its free pages begin at ${first}`);
      for (let free = first; free < first + pages; free++) this.mark(free);
    }
    return [];
  }
}

function keyAt(page: Buffer, i: number): Buffer {
  const node = nodeAt(page, i);
  const start = node + NODE_HEADER_BYTES;
  return page.subarray(start, start + keyBytes(page, node));
}

/** What a leaf's node holds of its value. */
function storedValueBytes(page: Buffer, node: number): number {
  return nodeFlags(page, node) & NodeFlag.overflow
    ? OVERFLOW_REFERENCE_BYTES
    : valueBytes(page, node);
}

const compareBytes: Compare = (a, b) => a.compare(b);

/** The keys of the free tree are transactions. */
function compareNumbers(a: Buffer, b: Buffer): number {
  return readNumber(a, 0) - readNumber(b, 0);
}
