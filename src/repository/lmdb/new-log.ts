import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Store } from './store.js';

/**
 * Makes a log where there is none yet, whole and on the disk before it gets its name: LMDB writes the first pages in
 * place, and a power cut in their midst would leave what nothing tells from a damaged log.
 */
export async function makeNewLog(
  directory: string,
  name: string,
  open: (path: string) => Store,
): Promise<void> {
  const path = join(directory, name);
  if (existsSync(join(path, 'data.mdb'))) return;
  const unfinished = join(directory, `new-${name}`);
  rmSync(unfinished, { recursive: true, force: true });
  await open(unfinished).close();
  await flush(join(unfinished, 'data.mdb'));
  syncDirectory(unfinished);
  // Of a log whose file was moved away.
  rmSync(path, { recursive: true, force: true });
  renameSync(unfinished, path);
  syncDirectory(directory);
}

async function flush(path: string): Promise<void> {
  const file = await openFile(path, 'r+');
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Makes the names in a directory survive a power cut. */
export function syncDirectory(path: string): void {
  const directory = openSync(path, 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
