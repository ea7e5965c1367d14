/** A log is not what the service wrote. The message completes "the log X is damaged (…)". */
export class DamageError extends Error {}

/** Turns the error of a check into one that names the log and says what to do. */
export function checkError(path: string, error: unknown): Error {
  const { message } = error as Error;
  // The disk may have failed, or the memory may be short. The log may be whole.
  if (!(error instanceof DamageError) && !isUnreadable(error))
    return new Error(`can't check the log ${path}: ${message}`, { cause: error });
  const what = error instanceof DamageError ? message : `a record can't be read: ${message}`;
  return new Error(
    `the log ${path} is damaged (${what}): restore it from a copy that was made while it was closed, or ` +
      'from a snapshot of its volume, or move it away to start anew',
    { cause: error },
  );
}

/** The codes of the errors that node throws when bytes beyond the end of a Buffer are read. */
const BEYOND_END = ['ERR_OUT_OF_RANGE', 'ERR_BUFFER_OUT_OF_BOUNDS'];

/** Returns true for the error of a record that is not what its table should hold. */
function isUnreadable(error: unknown): boolean {
  if (error instanceof SyntaxError || error instanceof TypeError) return true;
  return BEYOND_END.includes((error as NodeJS.ErrnoException).code ?? '');
}
