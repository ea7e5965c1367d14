/** Why a call ended other than well. Clients branch on these: google.rpc.ErrorInfo.reason. */
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
  | 'MESSAGE_INVALID'
  | 'TOO_SLOW'
  | 'TOO_MANY_ROOMS'
  | 'DRAINING';

/** An error that the client is told of, whatever the transport. */
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
}

/** What an open call is aborted with when the server shuts down. */
export function draining(): FeedError {
  return new FeedError('DRAINING', 'the server is shutting down: reconnect and go on');
}
