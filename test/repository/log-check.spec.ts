import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { checkFile } from '../../src/repository/lmdb/log-check.js';
import { openLmdbLog } from '../../src/repository/lmdb/lmdb-engine.js';
import { LogFile } from '../../src/repository/lmdb/log-file.js';
import { temporaryDirectory } from '../contract/temporary.js';

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
