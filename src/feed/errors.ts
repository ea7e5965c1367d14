import type { BadCompressionError } from '../wire/frames.js';

/** Why a call failed: google.rpc.ErrorInfo.reason, by which clients decide what to do. */
export type Reason =
  | 'CURSOR_INVALID'
  | 'CURSOR_EXPIRED'
  | 'CURSOR_AHEAD'
  | 'EPOCH_CHANGED'
  | 'REQUEST_INVALID'
  | 'TOPIC_INVALID'
  | 'START_INVALID'
  | 'HEARTBEAT_INVALID'
  | 'EVENT_INVALID'
  | 'UPLOAD_TOO_LONG'
  | 'INSERT_FAILED'
  | 'STORAGE_FULL'
  | 'STORE_UNAVAILABLE'
  | 'MESSAGE_INVALID'
  | 'COMPRESSION_INVALID'
  | 'COMPRESSION_UNSUPPORTED'
  | 'TOO_SLOW'
  | 'TOO_MANY_ROOMS'
  | 'LIMIT_EXCEEDED'
  | 'ROOM_INTERRUPTED'
  | 'UNAUTHENTICATED'
  | 'TOKEN_EXPIRED'
  | 'CERTIFICATE_EXPIRED'
  | 'KEYS_UNAVAILABLE'
  | 'TOPIC_FORBIDDEN'
  | 'STREAM_UNKNOWN'
  | 'ENDED_BY_OPERATOR'
  | 'BACKUP_UNSUPPORTED'
  | 'DRAINING'
  | 'MOVED';

/** An error that is sent to the client, by any transport. */
export class FeedError extends Error {
  constructor(
    readonly reason: Reason,
    message: string,
    /** google.rpc.ErrorInfo.metadata, by the contract's error table. */
    readonly metadata: Readonly<Record<string, string>> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** Returns this error with more metadata. */
  with(metadata: Readonly<Record<string, string>>): FeedError {
    const all = { ...this.metadata, ...metadata };
    return new FeedError(this.reason, this.message, all, { cause: this });
  }
}

/** Returns the error that ends a call one of whose messages has a bad compression. */
export function compressionRefused(cause: BadCompressionError): FeedError {
  const reason =
    cause.problem === 'not announced' ? 'COMPRESSION_INVALID' : 'COMPRESSION_UNSUPPORTED';
  return new FeedError(reason, cause.message, {}, { cause });
}

/** Returns the error that ends an open call when the server shuts down. */
export function draining(): FeedError {
  return new FeedError('DRAINING', 'the server is shutting down: reconnect and go on');
}

/** Returns the error that ends an open call because an operator said so. */
export function endedByOperator(): FeedError {
  return new FeedError('ENDED_BY_OPERATOR', 'an operator has ended this call: do not repeat it');
}

/** Returns the error that ends an open call whose connection moves to another replica. */
export function moved(): FeedError {
  return new FeedError('MOVED', 'the connection is old and moves: go on over a new one');
}

/** Returns the error that ends an open call on the connection of a client whose certificate has ended. */
export function certificateExpired(): FeedError {
  return new FeedError(
    'CERTIFICATE_EXPIRED',
    'the client certificate of this connection has expired: go on over a new one, with a new certificate',
  );
}
