import { getSystemErrorMap } from 'node:util';

/** Returns the code of a system error and what it means, such as "ENOENT (no such file or directory)". */
export function systemError(error: unknown): string {
  const { code, errno, message } = error as NodeJS.ErrnoException;
  if (code === undefined) return message;
  const meaning = errno === undefined ? undefined : getSystemErrorMap().get(errno)?.[1];
  return meaning === undefined ? code : `${code} (${meaning})`;
}
