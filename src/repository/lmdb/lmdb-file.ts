import { readSync } from 'node:fs';
import { DamageError } from './damage.js';

// The layout of an LMDB file as lmdb 3.5.6 writes it on a little-endian machine with 64 bits: mdb.c, struct
// MDB_page_header, MDB_meta, MDB_db, MDB_node and MDB_ovpage. It differs from LMDB 0.9's (which lacks a page's
// transaction, for one), and so does its version number.
const MAGIC = 0xbeefc0de;
const DATA_VERSION = 2;
/** A root page's number in the record of an empty tree. */
export const NO_PAGE = 2 ** 64;
export const PAGE_HEADER_BYTES = 24;
export const NODE_HEADER_BYTES = 8;
export const TREE_BYTES = 48;
export const OVERFLOW_REFERENCE_BYTES = 24;
/** The flags of a page, one of which it has. */
export const PageFlag = { branch: 1, leaf: 2, overflow: 4, meta: 8 } as const;
/** The flags of a node: its value is on overflow pages, or is the record of a tree. */
export const NodeFlag = { overflow: 1, tree: 2 } as const;

/** Where a tree is, and what is in it. */
export interface Tree {
  readonly flags: number;
  readonly depth: number;
  readonly branchPages: number;
  readonly leafPages: number;
  readonly overflowPages: number;
  readonly entries: number;
  readonly root: number;
}

/** A meta page: where the trees of a snapshot are. LMDB has two, and goes on from the one with the newer transaction. */
export interface Meta {
  readonly pageBytes: number;
  readonly free: Tree;
  readonly main: Tree;
  readonly lastPage: number;
  readonly transaction: number;
}

/** Exact for all but NO_PAGE and what no log grows to; several times faster than a BigInt. */
export function readNumber(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}

/** A page's own number. */
export const pageNumber = (page: Buffer): number => readNumber(page, 0);
/** The transaction that wrote a page. */
export const pageTransaction = (page: Buffer): number => readNumber(page, 8);
export const pageFlags = (page: Buffer): number => page.readUInt16LE(18);
/** In a branch or leaf page: the bytes from the header's end to the end of the list of nodes. */
export const lowerBound = (page: Buffer): number => page.readUInt16LE(20);
/** In a branch or leaf page: the bytes from the header's end to the lowest node. */
export const upperBound = (page: Buffer): number => page.readUInt16LE(22);
/** In the first of some overflow pages: how many there are. */
export const overflowPageCount = (page: Buffer): number => page.readUInt32LE(20);
/** Where the i-th node is in a branch or leaf page. */
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
 * Returns the meta page that LMDB goes on from.
 *
 * @throws DamageError if the file has none
 */
export function newestMeta(file: number): Meta {
  const first = metaAt(file, 0);
  const second = metaAt(file, first.pageBytes);
  if (second.pageBytes !== first.pageBytes)
    throw new DamageError('its meta pages contradict each other');
  return first.transaction >= second.transaction ? first : second;
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
  // As LMDB allows them; each a power of two.
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
