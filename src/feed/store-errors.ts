import { type AppendError, StoreUnavailableError } from '../repository/event-repository.js';
import { TooManyTopicsError } from '../repository/topic-limit.js';
import { FeedError } from './errors.js';

/**
 * Returns the error of a write that the store has refused.
 *
 * @param metadata what an upload adds: how many of its events are stored
 */
export function writeFailed(
  error: AppendError,
  metadata: Readonly<Record<string, string>> = {},
): FeedError {
  const cause = { cause: error };
  if (error instanceof TooManyTopicsError) {
    const limit = { limit: 'FEED_MAX_TOPICS', most: String(error.most) };
    return new FeedError('LIMIT_EXCEEDED', error.message, { ...limit, ...metadata }, cause);
  }
  switch (error.reason) {
    case 'storage-full':
      return new FeedError('STORAGE_FULL', error.message, metadata, cause);
    case 'unavailable':
      return new FeedError('STORE_UNAVAILABLE', error.message, metadata, cause);
    case 'refused':
      return new FeedError('INSERT_FAILED', `insert: ${error.message}`, metadata, cause);
  }
}

/**
 * Returns true if the store may hold events of an append that failed: their upload then ends with INSERT_FAILED or STORE_UNAVAILABLE
 * (docs/protocol.md, promise 10). What was refused for want of room, or for its topic, was refused before it was written.
 */
export function mayBeStored(error: AppendError): boolean {
  return error.reason !== 'storage-full' && !(error instanceof TooManyTopicsError);
}

/** Throws STORE_UNAVAILABLE for the error of a store that does not answer, and any other error as it is. */
export function rethrowAsUnavailable(error: unknown): never {
  if (!(error instanceof StoreUnavailableError)) throw error;
  throw new FeedError('STORE_UNAVAILABLE', error.message, {}, { cause: error });
}
