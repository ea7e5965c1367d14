import { closeSync, fsyncSync, openSync, renameSync, rmSync, statSync } from 'node:fs';
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
  const file = statSync(join(path, 'data.mdb'), { throwIfNoEntry: false });
  if (file && file.size > 0) return;
  const unfinished = join(directory, `new-${name}`);
  rmSync(unfinished, { recursive: true, force: true });
  await open(unfinished).close();
  syncDirectory(unfinished);
  // Of a log whose file was moved away.
  rmSync(path, { recursive: true, force: true });
  renameSync(unfinished, path);
  syncDirectory(directory);
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
