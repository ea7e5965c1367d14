import { readFile } from 'node:fs/promises';
import { systemError } from './system-error.js';

/**
 * Reads a file that an option names. What it fails with has nothing of a text that may be a secret, which the error of the system has.
 *
 * @param what names the file, for the error
 */
export async function readSettingFile(what: string, path: string): Promise<Buffer> {
  return readFile(path).catch((error: unknown) => {
    throw new Error(unreadable(what, path, error));
  });
}

/** Says that a file that an option names can't be read, and why. */
export const unreadable = (what: string, path: string, error: unknown): string =>
  `${what} can't be read: ${shownPath(path)}: ${systemError(error)}`;

/**
 * Returns the path of a file as it may be shown. A token or a key may have been given in place of the path of its file, and neither begins as the
 * path of a directory does: not a JWT or PEM, nor base 64 of them. A path without a directory, such as `key.pem`, can't be told from a token.
 */
function shownPath(path: string): string {
  const isShown = /^(~|\.{0,2})\/.*$/.test(path);
  return isShown
    ? path
    : '... (what does not begin with / or ./ is not shown, because it may be a token or a key)';
}
