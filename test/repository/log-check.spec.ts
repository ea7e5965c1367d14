import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { checkFile } from '../../src/repository/lmdb/log-check.js';
import { openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import {
  keyBytes,
  lowerBound,
  newestMeta,
  NODE_HEADER_BYTES,
  nodeAt,
  readTree,
  type Tree,
} from '../../src/repository/lmdb/lmdb-file.js';
import { LogFile } from '../../src/repository/lmdb/log-file.js';
import { forgetLog } from '../contract/checked-lmdb.js';
import { temporaryDirectory } from '../contract/temporary.js';
import { ids, readAll } from '../contract/reading.js';
import { checked } from '../wire/events.js';

it('an error of the file system is not told as damage, and names the file', async () => {
  const { path: directory, remove } = temporaryDirectory();
  onTestFinished(remove);
  await (await openLmdbLog({ directory, fsync: false })).close();
  const path = join(directory, 'log', 'data.mdb');
  const file = LogFile.open(path, directory);
  // Every read of it fails, with EBADF.
  file.close();
  const error = await checkFile(join(directory, 'log'), file, { info() {}, error() {} }).then(
    () => undefined,
    (reason: Error) => reason,
  );
  expect(error?.message).toContain(`can't check the log ${path}: EBADF`);
  expect(error?.message).not.toContain('damaged');
  expect(error?.cause).toMatchObject({ code: 'EBADF' });
});

/** Makes a log, and a copy of it that has the meta page of the last commit as it was some commits before. Returns the copy's directory. */
async function copyWithEarlierMeta(commits: number): Promise<string> {
  const { path: directory, remove } = temporaryDirectory();
  onTestFinished(remove);
  const log = await openLmdbLog({ directory, fsync: false });
  const writer = log.openWriter();
  const contents = (): Buffer => readFileSync(join(directory, 'log', 'data.mdb'));
  await writer.append(checked({ topic: 't', id: 'a' }));
  const earlier = contents();
  for (let i = 1; i <= commits; i++) await writer.append(checked({ topic: 't', id: `b${i}` }));
  const copy = contents();
  await log.close();

  const transactionAt = (page: number): bigint => copy.readBigUInt64LE(page + 152);
  const newest = transactionAt(0) > transactionAt(4096) ? 0 : 4096;
  earlier.copy(copy, newest, newest, newest + 4096);
  const { path, remove: removeCopy } = temporaryDirectory();
  onTestFinished(removeCopy);
  mkdirSync(join(path, 'log'));
  writeFileSync(join(path, 'log', 'data.mdb'), copy);
  return path;
}

it('a copy with a meta page of an earlier moment is refused: it would lack the last commit without a word', async () => {
  const directory = await copyWithEarlierMeta(4);
  await expect(openLmdbLog({ directory, fsync: false })).rejects.toThrow(
    'data.mdb is damaged (its meta pages are of two moments)',
  );
});

it('a copy with a meta page of one commit before is opened: all of it is of that moment', async () => {
  const log = await openLmdbLog({ directory: await copyWithEarlierMeta(1), fsync: false });
  onTestFinished(() => log.close());
  expect(ids(await readAll(log, 't', 0))).toEqual(['a']);
});

const PAGE = 4096;

/** Returns a page of a file's bytes, to be changed in place. */
const pageOf = (file: Buffer, { root }: Tree): Buffer =>
  file.subarray(PAGE * root, PAGE * (root + 1));

/** Returns the main tree of a log's file, and the tables that are in it. */
function treesOf(path: string, file: Buffer): { main: Tree; tables: Map<string, Tree> } {
  const descriptor = openSync(path, 'r');
  const { main } = newestMeta(descriptor);
  closeSync(descriptor);
  const page = pageOf(file, main);
  const tables = new Map<string, Tree>();
  for (let i = 0; i < lowerBound(page) / 2; i++) {
    const key = nodeAt(page, i) + NODE_HEADER_BYTES;
    const value = key + keyBytes(page, nodeAt(page, i));
    tables.set(page.toString('latin1', key, value).replace('\0', ''), readTree(page, value));
  }
  return { main, tables };
}

it('a copy with a page of a table in the place of the list of tables is refused: it would be opened as an empty log', async () => {
  const { path: directory, remove } = temporaryDirectory();
  onTestFinished(remove);
  const log = await openLmdbLog({ directory, fsync: false });
  const path = join(directory, 'log', 'data.mdb');
  const writer = log.openWriter();
  const order = (): Tree => treesOf(path, readFileSync(path)).tables.get('order')!;
  // The record of a tree says how many entries it has.
  for (let tables = treesOf(path, readFileSync(path)).tables.size; order().entries < tables;)
    await writer.append(checked({ topic: 't' }));
  await log.close();

  const file = readFileSync(path);
  const { main } = treesOf(path, file);
  const list = pageOf(file, main);
  pageOf(file, order()).copy(list);
  list.writeBigUInt64LE(BigInt(main.root));
  writeFileSync(path, file);
  forgetLog(directory);
  await expect(openLmdbLog({ directory, fsync: false })).rejects.toThrow('data.mdb is damaged (');
});
