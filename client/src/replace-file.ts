import { open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Replaces a file's content: after a crash, the file has the old content or the new one, whole. It writes `<path>.new`, flushes
 * it, renames it to `path`, and flushes the directory. Once this resolves, the new content survives a loss of power.
 */
export async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.new`;
  await flush(temporary, 'w', (file) => file.writeFile(text));
  await rename(temporary, path);
  await flush(dirname(path), 'r');
}

/** Opens a file or directory, writes to it if `write` is given, and flushes it to disk. */
async function flush(
  path: string,
  flags: string,
  write?: (file: Awaited<ReturnType<typeof open>>) => Promise<void>,
): Promise<void> {
  const file = await open(path, flags);
  try {
    await write?.(file);
    await file.sync();
  } finally {
    await file.close();
  }
}
