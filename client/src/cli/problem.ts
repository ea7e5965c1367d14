import { EpochChangedError, type FeedError } from '../errors.js';

/**
 * Returns a sentence for what is wrong, without its end. It is the server's, except for EPOCH_CHANGED: there, the server's text
 * advises to start "from earliest or head", and commands have no `head`. They add advice of their own.
 */
export function problemOf(error: FeedError): string {
  return error instanceof EpochChangedError
    ? 'the cursor is not of this log: it is of another one, or this one was lost or restored from a copy'
    : error.message;
}
