import { AppendError } from './event-repository.js';

/** How much a log keeps; 0 for no limit. What is over a limit is removed from the old end, but for the quota's. */
export interface RetentionLimits {
  /** Milliseconds of the log's own time. */
  readonly maxAge: number;
  /** Bytes of stored events, over all topics. */
  readonly maxBytes: number;
  /** Bytes of stored events of each topic. */
  readonly topicMaxBytes: number;
  /** Bytes of stored events, over all topics, that new ones are refused for rather than old ones removed. */
  readonly quotaBytes: number;
}

export const KEEP_ALL: RetentionLimits = {
  maxAge: 0,
  maxBytes: 0,
  topicMaxBytes: 0,
  quotaBytes: 0,
};

/** How often (milliseconds) an idle log looks for events that have become too old. */
export const RETENTION_INTERVAL = 1_000;

/** What a commit is to fail with that would take what is held over the quota. */
export function overQuota(
  { quotaBytes }: RetentionLimits,
  heldBytes: number,
  storedBytes: number,
): AppendError | undefined {
  if (quotaBytes === 0 || storedBytes === 0 || heldBytes + storedBytes <= quotaBytes)
    return undefined;
  return new AppendError(
    'storage-full',
    `the log holds ${heldBytes} bytes of events, and ${storedBytes} more are over FEED_QUOTA_BYTES, ${quotaBytes}: ` +
      'raise it, or let FEED_RETENTION_MAX_AGE or FEED_RETENTION_TOPIC_MAX_BYTES keep less',
  );
}
