import { isSystemError } from './access.js';

/** A log is not what the service wrote. The message completes "the log X is damaged (…)". */
export class DamageError extends Error {}

/** Turns the error of a check into one that names the log and says what to do. */
export function checkError(path: string, error: unknown): Error {
  const { message } = error as Error;
  // The disk may have failed. The log may be whole. Any other error is that of a record that can't be read.
  if (isSystemError(error))
    return new Error(`can't check the log ${path}: ${message}`, { cause: error });
  return new Error(
    `the log ${path} is damaged (${message}): restore it from a copy that was made while it was closed, or ` +
      'from a snapshot of its volume, or move it away to start anew',
    { cause: error },
  );
}
