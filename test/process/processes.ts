import { readdirSync, readFileSync } from 'node:fs';

/** Returns a file's text, or none where there is no such file. */
export const read = (path: string): string => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // It is not there yet, or no longer.
  }
};

/** The processes that have this in their environment. */
export const processesWith = (variable: string): number[] =>
  readdirSync('/proc')
    .filter((name) => read(`/proc/${name}/environ`).split('\0').includes(variable))
    .map(Number);
