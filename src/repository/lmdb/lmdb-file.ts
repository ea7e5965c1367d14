import { readSync } from 'node:fs';
import { DamageError } from './damage.js';

// The layout of an LMDB file as lmdb 3.5.6 writes it on a little-endian machine with 64 bits: mdb.c, struct
// MDB_page_header, MDB_meta, MDB_db, MDB_node and MDB_ovpage. LMDB 0.9 has another layout, in which pages have no
// transaction, and another version number.
//
// A leaf page of 4,096 bytes with two nodes of 40 bytes each has lowerBound 4 and upperBound 3992, because both count
// from the end of the header:
//
//     0        24              28           4016     4056     4096
//     | header | 4032 and 3992 | free space | node 1 | node 0 |
//
// A node is a header of 8 bytes, its key and its value. A branch's node has no value: its header names a page.
const MAGIC = 0xbeefc0de;
const DATA_VERSION = 2;
/** A root page's number in the record of an empty tree. */
export const NO_PAGE = 2 ** 64;
export const PAGE_HEADER_BYTES = 24;
export const NODE_HEADER_BYTES = 8;
export const TREE_BYTES = 48;
export const OVERFLOW_REFERENCE_BYTES = 24;
/** A page has one of these flags. */
export const PageFlag = { branch: 1, leaf: 2, overflow: 4, meta: 8 } as const;
/** overflow: the node's value is on overflow pages. tree: its value is the record of a tree. */
export const NodeFlag = { overflow: 1, tree: 2 } as const;

/** The record of a tree: where its root page is, and how much is in it. */
export interface Tree {
  readonly flags: number;
  readonly depth: number;
  readonly branchPages: number;
  readonly leafPages: number;
  readonly overflowPages: number;
  readonly entries: number;
  readonly root: number;
}

/**
 * A meta page: where a transaction left the main tree and the tree of free pages. The file has two of them, which
 * transactions write in turn. LMDB opens the one with the newer transaction.
 */
export interface Meta {
  readonly pageBytes: number;
  readonly free: Tree;
  readonly main: Tree;
  readonly lastPage: number;
  readonly transaction: number;
}

/** Reads 64 bits. The result is exact up to 2^53, which no log reaches. 64 bits of 1 give 2^64, which is NO_PAGE. */
export function readNumber(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}

/** The number that a page gives itself. */
export const pageNumber = (page: Buffer): number => readNumber(page, 0);
/** The transaction that wrote a page. */
export const pageTransaction = (page: Buffer): number => readNumber(page, 8);
export const pageFlags = (page: Buffer): number => page.readUInt16LE(18);
/** In a branch or leaf page: the bytes from the header's end to the end of the list of nodes. */
export const lowerBound = (page: Buffer): number => page.readUInt16LE(20);
/** In a branch or leaf page: the bytes from the header's end to the lowest node. */
export const upperBound = (page: Buffer): number => page.readUInt16LE(22);
/** In the first of adjacent overflow pages: how many there are. */
export const overflowPageCount = (page: Buffer): number => page.readUInt32LE(20);
/** The offset of the i-th node in a branch or leaf page. */
export const nodeAt = (page: Buffer, i: number): number =>
  PAGE_HEADER_BYTES + page.readUInt16LE(PAGE_HEADER_BYTES + 2 * i);
/** In a node of a branch page: the number of the page below. */
export const childPage = (page: Buffer, node: number): number => page.readUIntLE(node, 6);
/** In a node of a leaf page: the length of the value. */
export const valueBytes = (page: Buffer, node: number): number => page.readUInt32LE(node);
export const nodeFlags = (page: Buffer, node: number): number => page.readUInt16LE(node + 4);
export const keyBytes = (page: Buffer, node: number): number => page.readUInt16LE(node + 6);

export function readTree(bytes: Buffer, at: number): Tree {
  return {
    flags: bytes.readUInt16LE(at + 4),
    depth: bytes.readUInt16LE(at + 6),
    branchPages: readNumber(bytes, at + 8),
    leafPages: readNumber(bytes, at + 16),
    overflowPages: readNumber(bytes, at + 24),
    entries: readNumber(bytes, at + 32),
    root: readNumber(bytes, at + 40),
  };
}

/**
 * Returns the meta page that LMDB opens.
 *
 * @throws DamageError if the file lacks one of its two
 */
export function newestMeta(file: number): Meta {
  const [first, second] = metaPages(file);
  return first.transaction >= second.transaction ? first : second;
}

/**
 * Throws a DamageError unless the file's two meta pages are of one moment. As transactions write them in turn, each names the
 * transaction before or after that of the other. Where a copy has an older page in the place of the newer one, all that the other page
 * leads to may be whole, and the last commit would be missing without a word.
 */
export function checkMetaPages(file: number): void {
  const [first, second] = metaPages(file);
  if (Math.abs(first.transaction - second.transaction) > 1)
    throw new DamageError('its meta pages are of two moments');
}

function metaPages(file: number): [Meta, Meta] {
  const first = metaAt(file, 0);
  const second = metaAt(file, first.pageBytes);
  if (second.pageBytes !== first.pageBytes)
    throw new DamageError('its meta pages contradict each other');
  return [first, second];
}

function metaAt(file: number, position: number): Meta {
  const page = Buffer.alloc(PAGE_HEADER_BYTES + 144);
  const read = readSync(file, page, 0, page.length, position);
  if (read < page.length) throw new DamageError(`it has only ${position + read} bytes`);
  if (page.readUInt32LE(24) !== MAGIC || (pageFlags(page) & PageFlag.meta) === 0)
    throw new DamageError(
      position === 0 ? 'it is not an LMDB file' : 'its second meta page is none',
    );
  const version = page.readUInt32LE(28) & 0xffff;
  if (version !== DATA_VERSION)
    throw new DamageError(`it has version ${version} of LMDB's format, not ${DATA_VERSION}`);
  const pageBytes = page.readUInt32LE(48);
  // LMDB allows the powers of two in this range.
  if (pageBytes < 256 || pageBytes > 65_536 || (pageBytes & (pageBytes - 1)) !== 0)
    throw new DamageError(`its pages have ${pageBytes} bytes`);
  return {
    pageBytes,
    free: readTree(page, 48),
    main: readTree(page, 96),
    lastPage: readNumber(page, 144),
    transaction: readNumber(page, 152),
  };
}
