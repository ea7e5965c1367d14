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

/** The limits that a page's parent sets for it. */
interface Bounds {
  /** The transaction that wrote the parent. */
  readonly transaction: number;
  /** Each key k of the page has from <= k < to; undefined: no bound. */
  readonly from: Buffer | undefined;
  readonly to: Buffer | undefined;
}

/** How LMDB sorts the keys of a tree. */
type Compare = (a: Buffer, b: Buffer) => number;

/** Checks one value of a tree: that of the leaf's node at offset `node`, whose value begins at offset `value`. */
type ValueCheck = (leaf: Buffer, node: number, value: number) => Iterable<number>;

const COUNTED = ['branchPages', 'leafPages', 'overflowPages', 'entries'] as const;

/** The check of one tree. */
interface Walk {
  readonly compare: Compare;
  readonly checkValue: ValueCheck;
  /** How much of the tree was found so far. */
  readonly counts: Record<(typeof COUNTED)[number], number>;
}

/** LMDB's own stack has room for this many pages from a root to a leaf. */
const MAX_DEPTH = 32;

/**
 * Checks all pages of an LMDB file that its meta page leads to, and throws a DamageError at the first bad one. LMDB
 * itself checks little: it would crash on a bad page, or return bytes that another transaction wrote. Each page must
 * fulfil all of these:
 *
 * - It contains its own number.
 * - It has one owner: one place in one tree, or the list of free pages.
 * - Its transaction is not newer than its parent's, because LMDB writes a changed page and all pages above it anew. An
 *   overflow page's transaction is the one that its reference names.
 * - Its nodes fill it without a gap. Its keys are in order, and within the bounds that its parent sets.
 *
 * And each tree has as many pages and entries as its record says. The main tree holds such records and nothing else.
 */
export class TreeCheck {
  private readonly reader: PageReader;
  /** A bit for each page of the file: 1 once its owner is known. */
  private readonly claimed: Uint8Array;
  /** How many pages of trees were found. */
  private treePages = 0;

  /** @param size the file's size in bytes */
  constructor(
    file: number,
    private readonly size: number,
    private readonly meta: Meta,
  ) {
    this.reader = new PageReader(file, meta.pageBytes);
    this.claimed = new Uint8Array(Math.floor(meta.lastPage / 8) + 1);
  }

  /** Yields the share of the file's pages that is checked, from 0 to 1. */
  *run(): Generator<number> {
    const { main, free, transaction } = this.meta;
    yield* this.tree(main, transaction, compareBytes, (page, node, value) =>
      this.namedTree(page, node, value),
    );
    // In the record of the free tree, LMDB keeps flags of the whole file.
    yield* this.tree({ ...free, flags: 0 }, transaction, compareNumbers, (page, node, value) =>
      this.freePages(page, node, value),
    );
  }

  /** @param transaction the one that wrote the record of the tree */
  private *tree(
    tree: Tree,
    transaction: number,
    compare: Compare,
    checkValue: ValueCheck,
  ): Generator<number> {
    // A flag would say that LMDB sorts the keys in another way, or that a key has several values. Feed uses neither.
    if (tree.flags !== 0) throw new DamageError(`one of its trees has the flags ${tree.flags}`);
    const counts = { branchPages: 0, leafPages: 0, overflowPages: 0, entries: 0 };
    if (tree.root !== NO_PAGE) {
      if (tree.depth === 0 || tree.depth > MAX_DEPTH)
        throw new DamageError(`one of its trees has a depth of ${tree.depth}`);
      const bounds = { transaction, from: undefined, to: undefined };
      yield* this.treePage(tree.root, tree.depth, bounds, { compare, checkValue, counts });
    }
    for (const count of COUNTED) {
      if (counts[count] !== tree[count])
        throw new DamageError(`${counts[count]} ${count} are there of ${tree[count]}`);
    }
  }

  /** @param height 1 for a leaf, 2 for a page above leaves, and so on */
  private *treePage(number: number, height: number, bounds: Bounds, walk: Walk): Generator<number> {
    this.claimTreePages(number, 1);
    // A copy, because this page is needed until all pages below it are read, and the reader reuses its memory.
    const page = Buffer.from(this.reader.page(number));
    checkKind(page, number, height === 1 ? PageFlag.leaf : PageFlag.branch);
    const transaction = pageTransaction(page);
    if (transaction > bounds.transaction)
      throw new DamageError(`page ${number} is of a later moment than what leads to it`);
    const nodes = this.checkNodes(page, number, height === 1, bounds, walk.compare);
    const { counts } = walk;
    if (height > 1) {
      counts.branchPages++;
      for (let i = 0; i < nodes; i++) {
        const from = i === 0 ? bounds.from : keyAt(page, i);
        const to = i === nodes - 1 ? bounds.to : keyAt(page, i + 1);
        const child = childPage(page, nodeAt(page, i));
        yield* this.treePage(child, height - 1, { transaction, from, to }, walk);
      }
      return;
    }
    counts.leafPages++;
    counts.entries += nodes;
    for (let i = 0; i < nodes; i++) {
      const node = nodeAt(page, i);
      const value = node + NODE_HEADER_BYTES + keyBytes(page, node);
      if (nodeFlags(page, node) & NodeFlag.overflow)
        counts.overflowPages += this.overflow(page, node, value, transaction);
      yield* walk.checkValue(page, node, value);
    }
    yield this.treePages / this.meta.lastPage;
  }

  /** Claims pages for a tree. Throws if one is a meta page (0 or 1), outside the file, or claimed already. */
  private claimTreePages(first: number, count: number): void {
    const end = first + count;
    if (first < 2 || count < 1 || end - 1 > this.meta.lastPage)
      throw new DamageError(`it refers to page ${first} of ${this.meta.lastPage + 1}`);
    if (end * this.meta.pageBytes > this.size)
      throw new DamageError(`it has ${this.size} bytes, and page ${end - 1} is beyond them`);
    for (let page = first; page < end; page++) this.claim(page);
    this.treePages += count;
  }

  private claim(page: number): void {
    const bit = 1 << (page & 7);
    if (this.claimed[page >>> 3] & bit) throw new DamageError(`page ${page} is used twice`);
    this.claimed[page >>> 3] |= bit;
  }

  /** Checks the nodes of a branch or leaf page, and returns how many there are. */
  private checkNodes(
    page: Buffer,
    number: number,
    isLeaf: boolean,
    { from, to }: Bounds,
    compare: Compare,
  ): number {
    const lower = lowerBound(page);
    const upper = upperBound(page);
    const room = this.meta.pageBytes - PAGE_HEADER_BYTES;
    const nodes = lower / 2;
    const damaged = (what: string): DamageError =>
      new DamageError(`page ${number} is damaged: ${what}`);
    if (lower % 2 !== 0 || lower > upper || upper > room) throw damaged('its bounds');
    // LMDB never leaves fewer nodes, and ends the process if it finds fewer.
    if (nodes < (isLeaf ? 1 : 2)) throw damaged('it has too few nodes');
    let used = 0;
    let before = from;
    for (let i = 0; i < nodes; i++) {
      const node = nodeAt(page, i);
      if (node < PAGE_HEADER_BYTES + upper || node + NODE_HEADER_BYTES > this.meta.pageBytes)
        throw damaged('the place of a node');
      let bytes = NODE_HEADER_BYTES + keyBytes(page, node);
      if (isLeaf) bytes += storedValueBytes(page, node);
      if (node + bytes > this.meta.pageBytes) throw damaged('the length of a node');
      used += bytes + (bytes & 1);
      // LMDB ignores the key of a branch page's first node, whose child has all keys below the second node's.
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

  /** Checks the overflow pages that hold a node's value, and returns how many there are. */
  private overflow(page: Buffer, node: number, value: number, transaction: number): number {
    const first = readNumber(page, value);
    const written = readNumber(page, value + 8);
    const count = readNumber(page, value + 16);
    this.claimTreePages(first, count);
    const header = this.reader.page(first);
    checkKind(header, first, PageFlag.overflow);
    if (pageTransaction(header) !== written || written > transaction)
      throw new DamageError(`page ${first} is of another moment than what leads to it`);
    const needed = Math.ceil((PAGE_HEADER_BYTES + valueBytes(page, node)) / this.meta.pageBytes);
    if (overflowPageCount(header) !== count || needed !== count)
      throw new DamageError(`page ${first} has another length than what leads to it says`);
    return count;
  }

  /** Checks a tree whose record is a value of the main tree. */
  private *namedTree(page: Buffer, node: number, value: number): Generator<number> {
    if (nodeFlags(page, node) !== NodeFlag.tree || valueBytes(page, node) !== TREE_BYTES)
      throw new DamageError('the record of a tree is none');
    yield* this.tree(readTree(page, value), pageTransaction(page), compareBytes, (leaf, inner) => {
      if (nodeFlags(leaf, inner) & ~NodeFlag.overflow)
        throw new DamageError('a value is a tree of its own');
      return [];
    });
  }

  /**
   * Claims the pages of a list of free pages. The list begins with the number of entries. In lmdb-js, an entry may be
   * 0, which means nothing, or negative, which says how many pages begin at the next entry. The list 4, 9, -3, 20, 0
   * has four entries and frees the pages 9, 20, 21 and 22.
   */
  private freePages(page: Buffer, node: number, value: number): Iterable<number> {
    const length = valueBytes(page, node);
    const list =
      nodeFlags(page, node) & NodeFlag.overflow
        ? this.reader.bytes(
            readNumber(page, value) * this.meta.pageBytes + PAGE_HEADER_BYTES,
            length,
          )
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
      for (let free = first; free < first + pages; free++) this.claim(free);
    }
    return [];
  }
}

function checkKind(page: Buffer, number: number, flag: number): void {
  if (pageNumber(page) !== number || pageFlags(page) !== flag)
    throw new DamageError(`page ${number} is not what its tree says`);
}

function keyAt(page: Buffer, i: number): Buffer {
  const node = nodeAt(page, i);
  const start = node + NODE_HEADER_BYTES;
  return page.subarray(start, start + keyBytes(page, node));
}

/** Returns the size of what a leaf's node holds: its value, or a reference to overflow pages. */
function storedValueBytes(page: Buffer, node: number): number {
  return nodeFlags(page, node) & NodeFlag.overflow
    ? OVERFLOW_REFERENCE_BYTES
    : valueBytes(page, node);
}

const compareBytes: Compare = (a, b) => a.compare(b);

/** Compares keys of the free tree, which are the numbers of transactions. */
function compareNumbers(a: Buffer, b: Buffer): number {
  return readNumber(a, 0) - readNumber(b, 0);
}
